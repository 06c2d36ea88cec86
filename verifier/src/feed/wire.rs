//! The messages of the feed as they travel over gRPC. Nothing in them is believed here.

use bytes::Bytes;
use dayfly_proto::v1::follow_response::Message as Down;
use dayfly_proto::v1::{self, FollowResponse};

use super::follower::Message;
use super::head::SignedHead;

/// The version of the trust statement that a heartbeat says the broker has.
pub(super) const fn offered_trust(message: &FollowResponse) -> u64 {
    if let Some(Down::Heartbeat(beat)) = &message.message { beat.trust_version } else { 0 }
}

/// A message of the feed; `None` if it is none.
pub(super) fn message_from_wire(response: FollowResponse) -> Option<Message<Bytes>> {
    Some(match response.message? {
        Down::Snapshot(v1::Snapshot { entries, head }) => {
            Message::Snapshot(entries, head.map(head_from_wire).transpose().ok()?)
        }
        Down::Delta(v1::Delta { entries, head }) => {
            Message::Delta(entries, head_from_wire(head?).ok()?)
        }
        Down::Heartbeat(v1::Heartbeat { head, challenge, trust_version: _ }) => {
            Message::Heartbeat(head_from_wire(head?).ok()?, challenge.to_vec())
        }
    })
}

fn head_from_wire(head: v1::SignedHead) -> Result<SignedHead, std::array::TryFromSliceError> {
    let v1::SignedHead { head, signature } = head;
    Ok(SignedHead { head: head.to_vec(), signature: signature.as_ref().try_into()? })
}

/// A head as it is sent.
pub(super) fn head_to_wire(head: SignedHead) -> v1::SignedHead {
    let SignedHead { head, signature } = head;
    v1::SignedHead { head: head.into(), signature: signature.to_vec().into() }
}
