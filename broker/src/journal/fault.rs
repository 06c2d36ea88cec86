//! A journal that fails on purpose, for tests: what must hold with a store that fails is shown
//! with this one. Must never be configured in a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dayfly_verifier::id::Seq;
use tokio::sync::watch;

use super::{Journal, JournalError, Recorded, StoredEntry};
use crate::core::event::Head;

/// How an append fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The store refuses it: nothing is appended.
    Refuse,
    /// It is lost, and its caller cannot tell.
    LoseUnknown,
    /// It stands, and its caller cannot tell.
    StandUnknown,
    /// Another broker is faster: these entries stand before it is tried.
    Overtaken(Vec<crate::core::event::Entry>),
}

/// A journal in front of another, which fails the appends that it was told to.
#[derive(Clone)]
pub struct Faulty<J> {
    inner: J,
    plans: Arc<Mutex<Plans>>,
}

#[derive(Default)]
struct Plans {
    appends: u64,
    at: BTreeMap<u64, Plan>,
    silent: bool,
    blind: bool,
    slow: Duration,
}

impl<J: Journal> Faulty<J> {
    /// `inner`, so far without faults.
    pub fn new(inner: J) -> Self {
        Self { inner, plans: Arc::default() }
    }

    /// Fails the append that comes after `others` more.
    pub fn fail(&self, others: u64, plan: Plan) {
        self.plans(|plans| {
            let at = plans.appends.saturating_add(others);
            plans.at.insert(at, plan);
        });
    }

    /// From now on, or no longer, refuses everything: reads and confirmations too.
    pub fn cut(&self, cut: bool) {
        self.plans(|plans| plans.silent = cut);
    }

    /// From now on, or no longer, refuses reads and nothing else.
    pub fn blind(&self, blind: bool) {
        self.plans(|plans| plans.blind = blind);
    }

    /// From now on takes so long to confirm.
    pub fn slow(&self, by: Duration) {
        self.plans(|plans| plans.slow = by);
    }

    /// How many appends were tried.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.plans(|plans| plans.appends)
    }

    fn plans<T>(&self, with: impl FnOnce(&mut Plans) -> T) -> T {
        with(&mut self.plans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reachable(&self) -> Result<(), JournalError> {
        if self.plans(|plans| plans.silent) { Err(planned()) } else { Ok(()) }
    }
}

fn planned() -> JournalError {
    JournalError::Unavailable("a planned fault".into())
}

impl<J: Journal> Faulty<J> {
    async fn add(
        &self,
        after: &Head,
        entries: &[StoredEntry],
        in_turn: bool,
    ) -> Result<Recorded<Head>, JournalError> {
        self.reachable()?;
        let append = async || match in_turn {
            true => self.inner.append_in_turn(after, entries).await,
            false => self.inner.append(after, entries).await,
        };
        let plan = self.plans(|plans| {
            let plan = plans.at.remove(&plans.appends);
            plans.appends = plans.appends.saturating_add(1);
            plan
        });
        let unknown = || JournalError::Unknown("a planned fault".into());
        match plan {
            None => append().await,
            Some(Plan::Refuse) => Err(planned()),
            Some(Plan::LoseUnknown) => Err(unknown()),
            Some(Plan::StandUnknown) => {
                append().await?;
                Err(unknown())
            }
            Some(Plan::Overtaken(others)) => {
                let head = *self.inner.confirm().await?;
                self.inner.append(&head, &super::chain(&head, &others)?).await?;
                append().await
            }
        }
    }
}

#[async_trait]
impl<J: Journal> Journal for Faulty<J> {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, false).await
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, true).await
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        self.reachable()?;
        self.inner.turn().await
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        self.reachable()?;
        self.inner.pass_turn().await
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        self.reachable()?;
        if self.plans(|plans| plans.blind) {
            return Err(planned());
        }
        self.inner.read(after, limit).await
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        self.reachable()?;
        self.inner.head_at(seq).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        self.reachable()?;
        let slow = self.plans(|plans| plans.slow);
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.inner.confirm().await
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.inner.moved()
    }
}
