use super::*;

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dayfly.toml");
    files::write_public(&path, text.as_bytes()).unwrap();
    let env = |name: &str| {
        env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    Config::load(&path, env)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "dayfly.toml"))
}

#[test]
fn refusals_name_the_field_and_the_rule() {
    let refused = |text: &str| load(text, &[]).unwrap_err();
    let cases = [
        ("", "line 1: missing field `trust_domain`"),
        ("trust_domain = \"Shop\"", "trust_domain: must be"),
        ("trust_domain = \"shop/x\"", "trust_domain: must be"),
        ("trust_domain = \"a\"\ntrust_domian = \"a\"", "line 2: unknown field `trust_domian`"),
        ("trust_domain = \"a\"\n[listen]\nbroker = \"7443\"", "listen.broker: must be an IP"),
        ("trust_domain = \"a\"\n[listen]\ngrpc = \"x\"", "line 3: unknown field `grpc`"),
        ("trust_domain = \"a\"\n[limits]\ntoken_seconds = 0", "limits.token_seconds: must be 1"),
        ("trust_domain = \"a\"\n[limits]\ntoken_seconds = 901", "limits.token_seconds: must"),
        (
            "trust_domain = \"a\"\n[limits]\npending_seconds = 86401",
            "limits.pending_seconds: must be 1 to 86400",
        ),
        (
            "trust_domain = \"a\"\n[limits]\nlease_seconds = 3601",
            "limits.lease_seconds: must be 1 to 3600",
        ),
        (
            "trust_domain = \"a\"\n[limits]\npending_requests = 10001",
            "limits.pending_requests: must be 1 to 10000",
        ),
        (
            "trust_domain = \"a\"\n[connections]\nper_address = 1000001",
            "connections.per_address: must be 1 to 1000000",
        ),
        ("trust_domain = \"a\"\n[limits]\nlive_grants = 0", "limits.live_grants: must be 1"),
        ("trust_domain = \"a\"\n[limits]\nlive_grants = -1", "line 3: invalid value"),
        ("trust_domain = \"a\"\n[connections]\ntotal = 0", "connections.total: must be 1"),
        (
            "trust_domain = \"a\"\n[journal]\nsnapshot_every = 99",
            "journal.snapshot_every: must be 100",
        ),
        ("trust_domain = \"a\"\n[log]\nformat = \"xml\"", "log.format: must be `text`"),
        ("trust_domain = \"a\"\nadvertise = \"broker\"", "advertise: must be `host:port`"),
        ("trust_domain = \"a\"\nname = \"b/c\"", "name: must be one segment"),
        ("trust_domain = \"a\"\nname = \"\"", "name: must be one segment"),
        ("trust_domain = \"a\"\n[[peer]]\nname = \"b\"", "missing field `address`"),
        (
            "trust_domain = \"a\"\n[[peer]]\nname = \"b\"\naddress = \"b\"",
            "peer.address: must be `host:port`",
        ),
        ("trust_domain = \"a\"\n[[peer]]\naddress = \"b:1\"", "peer.name: must not be"),
    ];
    for (text, message) in cases {
        let refused = refused(text);
        assert!(refused.contains(message), "{refused:?} lacks {message:?}");
    }
}

#[test]
fn the_environment_goes_over_the_file() {
    let text = "trust_domain = \"shop.test\"\n[listen]\nbroker = \"10.0.0.1:1\"";
    let config = load(text, &[("DAYFLY_LISTEN_BROKER", "10.0.0.2:2")]).unwrap();
    assert_eq!(config.listen.broker.to_string(), "10.0.0.2:2");
    assert_eq!(config.listen.join.to_string(), "127.0.0.1:7444");
    assert_eq!(config.keys(), config.dir.join("keys"));
    let apart = load(text, &[("DAYFLY_KEYS", "/run/dayfly")]).unwrap();
    assert_eq!(apart.keys(), Path::new("/run/dayfly"));
    assert_eq!(apart.journal().file_name(), config.journal().file_name());
    assert_eq!(config.limits, Limits::default());
    let most = "trust_domain = \"a\"\n[limits]\npending_seconds = 86400\n\
                lease_seconds = 3600\ntoken_seconds = 900\nlive_grants = 10000";
    let limits = load(most, &[]).unwrap().limits;
    assert_eq!(limits.pending_life, crate::core::limits::MAX_PENDING_LIFE);
    assert_eq!(limits.token_life, crate::core::limits::MAX_TOKEN_LIFE);
    assert!(load(text, &[("DAYFLY_LOG_FORMAT", "xml")]).is_err());
}

#[test]
fn brokers_of_one_directory_have_names() {
    let text = "trust_domain = \"a.test\"\nname = \"b\"\n[[peer]]\naddress = \"c:1\"";
    let config = load(text, &[]).unwrap();
    assert_eq!(config.id.as_str(), "spiffe://a.test/dayfly/broker/b");
    let peer = |peer: &Peer| (peer.id.to_string(), peer.address.clone());
    let peers: Vec<_> = config.peers.iter().map(peer).collect();
    assert_eq!(peers, [("spiffe://a.test/dayfly/broker".to_owned(), "c:1".to_owned())]);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dayfly.toml");
    files::write_public(&path, b"trust_domain = \"a\"").unwrap();
    assert!(Config::load(&path, |_| None).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(Config::load(&path, |_| None), Err(ConfigError::File(_))));
}
