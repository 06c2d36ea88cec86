//! The protobuf messages of a Biscuit (its `schema.proto`), with only the fields that the profile
//! allows. Rules, scopes, contexts, public keys, closures, kinds of checks and every field from the
//! future are missing on purpose: a message that has one does not encode back to its own bytes.

use prost::Message;
use zeroize::Zeroize as _;

/// The algorithm number of Ed25519.
pub(super) const ED25519: i32 = 0;

/// Reads a message that is in its one encoding and holds nothing unknown.
pub(super) fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = zeroize::Zeroizing::new(message.encode_to_vec());
    (again.as_slice() == bytes).then_some(message)
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Biscuit {
    #[prost(uint32, optional, tag = "1")]
    pub(super) root_key_id: Option<u32>,
    #[prost(message, required, tag = "2")]
    pub(super) authority: SignedBlock,
    #[prost(message, repeated, tag = "3")]
    pub(super) blocks: Vec<SignedBlock>,
    #[prost(message, required, tag = "4")]
    pub(super) proof: Proof,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct SignedBlock {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(super) block: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub(super) next_key: PublicKey,
    #[prost(bytes = "vec", required, tag = "3")]
    pub(super) signature: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub(super) external: Option<ExternalSignature>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) version: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct ExternalSignature {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(super) signature: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub(super) key: PublicKey,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(super) struct PublicKey {
    #[prost(int32, required, tag = "1")]
    pub(super) algorithm: i32,
    #[prost(bytes = "vec", required, tag = "2")]
    pub(super) key: Vec<u8>,
}

/// What ends the chain: the private half of the last block's next key. Wiped on drop.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(super) struct Proof {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) next_secret: Option<Vec<u8>>,
    /// Read only to say that the token is sealed.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) final_signature: Option<Vec<u8>>,
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.next_secret.zeroize();
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Block {
    #[prost(string, repeated, tag = "1")]
    pub(super) symbols: Vec<String>,
    #[prost(uint32, optional, tag = "3")]
    pub(super) version: Option<u32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) facts: Vec<Fact>,
    #[prost(message, repeated, tag = "6")]
    pub(super) checks: Vec<Check>,
}

/// A [`Block`] whose checks stay as they came: most of those of an authority block say again what
/// its facts say.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthorityBlock {
    #[prost(string, repeated, tag = "1")]
    pub(super) symbols: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(super) facts: Vec<Fact>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) checks: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fact {
    #[prost(message, required, tag = "1")]
    pub(super) predicate: Predicate,
}

/// `check if`: the one kind of check that has no kind.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Check {
    #[prost(message, repeated, tag = "1")]
    pub(super) queries: Vec<Query>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Query {
    #[prost(message, required, tag = "1")]
    pub(super) head: Predicate,
    #[prost(message, repeated, tag = "2")]
    pub(super) body: Vec<Predicate>,
    #[prost(message, repeated, tag = "3")]
    pub(super) expressions: Vec<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Predicate {
    #[prost(uint64, required, tag = "1")]
    pub(super) name: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) terms: Vec<Term>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Term {
    #[prost(oneof = "Content", tags = "1, 2, 3, 4, 5, 6, 7, 9")]
    pub(super) content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(uint32, tag = "1")]
    Variable(u32),
    #[prost(int64, tag = "2")]
    Integer(i64),
    #[prost(uint64, tag = "3")]
    Text(u64),
    #[prost(uint64, tag = "4")]
    Date(u64),
    #[prost(bytes, tag = "5")]
    Bytes(Vec<u8>),
    #[prost(bool, tag = "6")]
    Bool(bool),
    #[prost(message, tag = "7")]
    Set(Members),
    #[prost(message, tag = "9")]
    Array(Members),
}

/// The members of a set or an array: literals, so that nothing nests.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Members {
    #[prost(message, repeated, tag = "1")]
    pub(super) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Member {
    #[prost(oneof = "Literal", tags = "2, 3, 5, 6")]
    pub(super) literal: Option<Literal>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Oneof)]
pub(super) enum Literal {
    #[prost(int64, tag = "2")]
    Integer(i64),
    #[prost(uint64, tag = "3")]
    Text(u64),
    #[prost(bytes, tag = "5")]
    Bytes(Vec<u8>),
    #[prost(bool, tag = "6")]
    Bool(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Expression {
    #[prost(message, repeated, tag = "1")]
    pub(super) ops: Vec<Op>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Op {
    #[prost(oneof = "Operator", tags = "1, 3")]
    pub(super) operator: Option<Operator>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Operator {
    #[prost(message, tag = "1")]
    Value(Term),
    #[prost(message, tag = "3")]
    Binary(Binary),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Binary {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
}

/// The numbers of the operators in the profile.
pub(super) mod op {
    /// `<`
    pub(in super::super) const LESS: i32 = 0;
    /// `<=`
    pub(in super::super) const AT_MOST: i32 = 2;
    /// `>=`
    pub(in super::super) const AT_LEAST: i32 = 3;
    /// `===`: an error where the types differ
    pub(in super::super) const EQUAL: i32 = 4;
    /// `.contains(..)`
    pub(in super::super) const CONTAINS: i32 = 5;
    /// `.starts_with(..)`
    pub(in super::super) const STARTS_WITH: i32 = 6;
    /// `==`: false where the types differ; of datalog 3.3
    pub(in super::super) const SAME: i32 = 21;
}
