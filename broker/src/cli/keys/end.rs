//! `dayfly keys retire` and `kill`: a token key that signs nothing more, and one with which all
//! that it signed ends.

use clap::Args;
use dayfly_proto::v1::{self, revocation_target::Target};
use serde_json::json;

use super::super::exit::Refused;
use super::super::number::whole;
use super::super::operate::seq_of;
use super::super::revoke::take_back;
use super::super::{Context, block_on};

/// Let a token key sign nothing more. What it signed lives out.
#[derive(Debug, Args)]
pub(super) struct Retire {
    /// Its number.
    #[arg(value_name = "KEY", value_parser = whole::<u32>)]
    key: u32,
}

/// Take back a token key, and with it all that it signed or would sign, for good.
///
/// Grants stay: with another key in use, their holders exchange them anew. A feed key is taken back
/// by the trust root, with `dayfly keys sign --drop-feed`.
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Its number.
    #[arg(value_name = "KEY", value_parser = whole::<u32>)]
    key: u32,
    /// Why, for the record: at most 2 KiB.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until it holds at every gateway, and tell how far each is, as `dayfly revoke` does.
    #[arg(long)]
    wait: bool,
}

impl Retire {
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { key } = self;
        block_on(async {
            let mut client = context.operator().await?;
            let retired = client.retire_key(v1::RetireKeyRequest { key }).await;
            let retired = retired.map_err(|e| context.status(e))?.into_inner();
            let seq = seq_of(retired.head)?;
            context.console.result(
                || {
                    format!(
                        "key {key} signs nothing more since entry {seq}; what it signed lives out"
                    )
                },
                || json!({ "key": key, "seq": seq }),
            );
            Ok(())
        })
    }
}

impl Kill {
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { key, reason, wait } = self;
        let target = Some(v1::RevocationTarget { target: Some(Target::Key(key)) });
        block_on(take_back(context, v1::RevokeRequest { target, reason }, wait))
    }
}
