//! A broker as an operator runs it: founded, served, joined, looked at, stopped; and what must
//! keep it from starting.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use dayfly_tests::shop::{AGENT, Shop};
use dayfly_tests::site::{Site, chmod, ended};
use dayfly_verifier::time::{Clock as _, SystemClock};

const BINARY: &str = env!("CARGO_BIN_EXE_dayfly");

#[test]
fn founded_served_joined_and_stopped() {
    let mut site = Site::found(BINARY);
    let serving = site.serve();
    assert_eq!(serving.http("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(serving.http("/readyz"), (200, "ready\n".to_owned()));

    site.join(&serving, "olga", &Shop::person("olga"));
    site.join(&serving, "agent", AGENT);
    let (code, status, said) = ended(&mut site.cli("olga", ["status", "--output", "json"]));
    assert_eq!(code, Some(0), "{said}");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status.to_string().contains("spiffe://shop.test/dayfly/broker"), "{status}");

    let (code, shown, said) = ended(&mut site.cli("agent", ["status"]));
    assert_eq!((code, shown.as_str()), (Some(11), ""), "{said}");
    let (code, _, said) = ended(&mut site.cli("nobody", ["status"]));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("dayfly join"), "it does not say what to do: {said}");

    let metrics = serving.http("/metrics").1;
    let counted = "dayfly_calls_total{method=\"/dayfly.v1.OperatorService/GetStatus\"";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(serving.stop(), Some(0));

    let (code, _, said) = ended(&mut site.cli("olga", ["status"]));
    assert_eq!(code, Some(20), "{said}");
    // What was joined stays joined: the broker comes back as the same one.
    let again = site.serve();
    assert_eq!(ended(&mut site.cli("olga", ["status"])).0, Some(0));
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn a_join_string_is_good_once_and_only_at_its_own_broker() {
    let (mut site, mut other) = (Site::found(BINARY), Site::found(BINARY));
    let (serving, elsewhere) = (site.serve(), other.serve());
    let string = site.invite(AGENT);
    let join = |site: &Site, who: &str, address: std::net::SocketAddr| {
        let address = address.to_string();
        ended(&mut site.cli(who, ["join", &string, "--broker", &address]))
    };
    let (code, _, said) = join(&site, "a", elsewhere.ports.join);
    assert_eq!(code, Some(20), "{said}");
    assert!(said.contains("not a broker of ours"), "{said}");
    assert_eq!(join(&site, "a", serving.ports.join).0, Some(0), "the secret was not spent");
    let (code, _, said) = join(&site, "b", serving.ports.join);
    assert_eq!(code, Some(11), "{said}");
    assert!(!said.contains(string.split('.').nth(2).unwrap()), "the secret is shown");
    for log in [serving.log(), elsewhere.log()] {
        assert!(!log.contains(string.split('.').nth(2).unwrap()), "the secret is logged");
    }
}

#[test]
fn a39_an_identity_of_another_authority_gets_nowhere() {
    let (mut site, mut other) = (Site::found(BINARY), Site::found(BINARY));
    let (serving, elsewhere) = (site.serve(), other.serve());
    site.join(&serving, "olga", &Shop::person("olga"));
    other.join(&elsewhere, "olga", &Shop::person("olga"));
    // The forger tells its client to believe our broker, and shows it a certificate of its own.
    let copied = |file: &str| {
        std::fs::copy(site.path("olga").join(file), other.path("olga").join(file)).unwrap();
    };
    copied("identity.toml");
    copied("bundle.pem");
    let (code, shown, said) = ended(&mut other.cli("olga", ["status"]));
    assert_eq!((code, shown.as_str()), (Some(64), ""), "{said}");
    assert!(said.contains("refuses our certificate"), "{said}");
}

#[test]
fn a38_the_broker_survives_running_out_of_file_descriptors() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut site = Site::found(BINARY);
    let serving = site.serve();
    site.join(&serving, "olga", &Shop::person("olga"));
    let pid = Pid::from_child(&serving.child);
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let held: Vec<TcpStream> = (0..128)
        .map(|_| {
            let mut stream = TcpStream::connect(serving.ports.broker).unwrap();
            stream.write_all(b"x").unwrap();
            stream
        })
        .collect();
    let deadline = SystemClock.uptime().saturating_add(Duration::from_secs(60));
    while !serving.log().contains("cannot accept a connection") {
        assert!(SystemClock.uptime() < deadline, "it never ran out: {}", serving.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(held);
    let (code, _, said) = ended(&mut site.cli("olga", ["status"]));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(serving.stop(), Some(0));
}

#[test]
fn a_check_looks_at_all_that_a_start_looks_at_and_opens_no_port() {
    let site = Site::found(BINARY);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let check = || {
        let mut check = site.serve_command();
        check.arg("--check").env("DAYFLY_LISTEN_BROKER", &at).env("DAYFLY_LISTEN_HTTP", &at);
        ended(&mut check)
    };
    let (code, told, said) = check();
    assert_eq!(code, Some(0), "{said}");
    assert!(told.starts_with("a broker would start here: entry "), "{told}");
    let key = site.broker().join("keys/token-1.key");
    chmod(&key, 0o644);
    let (code, _, said) = check();
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("token-1.key"), "{said}");
    chmod(&key, 0o600);
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("colour = \"red\"\n{config}")).unwrap();
    let (code, _, said) = check();
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("unknown field `colour`"), "{said}");
}

#[test]
fn a41_a_bad_configuration_ends_before_a_port_opens() {
    let site = Site::found(BINARY);
    // Whatever opened a port would end by this one.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let serve = || {
        let mut serve = site.serve_command();
        for port in ["BROKER", "JOIN", "HTTP"] {
            serve.env(format!("DAYFLY_LISTEN_{port}"), &at);
        }
        ended(&mut serve)
    };
    let refused = |why: &str| {
        let (code, _, said) = serve();
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(why), "{said:?} does not say {why:?}");
        assert!(!said.contains("serving") && !said.contains("cannot listen"), "{said}");
    };
    let (_, _, said) = serve();
    assert!(said.contains("cannot listen"), "{said}");
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("colour = \"red\"\n{config}")).unwrap();
    refused("unknown field `colour`");
    std::fs::write(site.config(), &config).unwrap();
    chmod(&site.config(), 0o666);
    refused("must not be writable");
    chmod(&site.config(), 0o644);
    for key in ["authority.key", "token-1.key"] {
        let (path, aside) = (site.broker().join("keys").join(key), site.path("aside"));
        chmod(&path, 0o644);
        refused(key);
        chmod(&path, 0o600);
        std::fs::rename(&path, &aside).unwrap();
        refused(key);
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        refused(key);
        std::fs::rename(&aside, &path).unwrap();
    }
    let mut missing = site.command(["serve", "--config", "/nonexistent/dayfly.toml"]);
    let (code, _, said) = ended(&mut missing);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("dayfly init"), "{said}");
}

#[test]
fn nothing_is_founded_over_a_broker_or_on_a_bad_bundle() {
    let site = Site::found(BINARY);
    let init = |dir: &std::path::Path, domain: &str| {
        let mut init = site.command(["init", "--trust-domain", domain, "--dir"]);
        ended(init.arg(dir).arg("--policy").arg(&site.shop.bundle))
    };
    let root = || std::fs::read(site.broker().join("trust-root.key")).unwrap();
    let before = root();
    let (code, _, said) = init(&site.broker(), "shop.test");
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(root(), before);
    // Not over the keys of one whose journal and configuration are elsewhere either.
    let authority = || std::fs::read(site.broker().join("keys/authority.key")).unwrap();
    let before = authority();
    for name in ["dayfly.toml", "journal.db", "trust-root.key", "trust-root.pub"] {
        std::fs::remove_file(site.broker().join(name)).unwrap();
    }
    assert_eq!(init(&site.broker(), "shop.test").0, Some(2));
    assert_eq!(authority(), before);
    assert_eq!(init(&site.path("upper"), "Shop.test").0, Some(2));
    std::fs::write(site.shop.bundle.join("policy.cedar"), "permit (principal, action);").unwrap();
    let (code, _, said) = init(&site.path("bad"), "shop.test");
    assert_eq!(code, Some(64), "{said}");
    assert!(!site.path("bad").join("dayfly.toml").exists());
}
