//! `dayfly keys list`: the signing keys, and how far each is known.

use clap::Args;
use dayfly_proto::v1::{self, KeyStanding};
use serde_json::json;

use super::super::exit::Refused;
use super::super::when::time_of_ms;
use super::super::{Context, block_on};

/// List the keys, what each signs, how it stands, and how many gateway instances know it.
///
/// Keys that sign tokens and keys that sign the feed are numbered apart. Of the keys that may sign,
/// the one with the highest number does.
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let Self {} = self;
        block_on(async {
            let mut client = context.operator().await?;
            let listed = client.list_keys(v1::ListKeysRequest {}).await;
            let v1::ListKeysResponse { keys, trust_version, feed_keys } =
                listed.map_err(|e| context.status(e))?.into_inner();
            let tokens = keys.iter().map(|key| ("tokens", key));
            let all: Vec<_> = tokens.chain(feed_keys.iter().map(|key| ("feed", key))).collect();
            let head = ["key", "signs", "standing", "until", "held here", "known by"];
            let rows = all.iter().map(|(signs, key)| {
                vec![
                    key.key.to_string(),
                    (*signs).to_owned(),
                    standing(key),
                    time_of_ms(key.not_after_ms),
                    if key.held { "yes" } else { "no" }.to_owned(),
                    format!("{} of {}", key.known_by, key.instances),
                ]
            });
            let json = || {
                let key = |(signs, key): &(&str, &v1::SigningKey)| {
                    json!({
                        "key": key.key, "signs": signs, "standing": standing(key),
                        "public_key": key.public_key, "not_after_ms": key.not_after_ms,
                        "held": key.held, "known_by": key.known_by, "instances": key.instances,
                        "trust_version": trust_version,
                    })
                };
                all.iter().map(key).collect()
            };
            context.console.table(&head, rows.collect(), json);
            Ok(())
        })
    }
}

/// `signing`, `waiting`, `retired`.
fn standing(key: &v1::SigningKey) -> String {
    let name = KeyStanding::try_from(key.standing).unwrap_or(KeyStanding::Unspecified);
    name.as_str_name().trim_start_matches("KEY_STANDING_").to_lowercase()
}
