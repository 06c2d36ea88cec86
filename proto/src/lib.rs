//! The gRPC interface of Dayfly as Rust types, generated from `proto/dayfly/v1`.

/// The messages, clients and servers of the package `dayfly.v1`.
#[expect(
    missing_docs,
    reason = "generated: the comments of the .proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("dayfly.v1");

    /// The encoded `FileDescriptorSet` of the package: every service, method and message.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dayfly.v1.bin"));
}
