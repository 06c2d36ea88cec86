//! Where randomness comes from: the operating system, or in tests a seed.

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`. Bytes that others could guess are not a failure that can be told: where none
    /// can be had, the process ends.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            tracing::error!("the operating system gives no random bytes");
            std::process::abort();
        }
    }
}
