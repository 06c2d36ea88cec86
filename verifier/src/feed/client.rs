//! The gRPC client that follows a feed.
