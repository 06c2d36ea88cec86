//! What the page of an operator says.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use super::*;

fn instance(name: &str, silent_for_ms: i64, refuses_in_ms: i64) -> InstanceStatus {
    InstanceStatus {
        gateway: "spiffe://shop.test/gateway/orders".into(),
        instance: name.into(),
        enforced_seq: 65,
        silent_for_ms,
        refuses_in_ms,
        max_staleness_ms: 5_000,
        connected: true,
        best_effort: false,
    }
}

fn seen() -> Seen {
    let day = 24 * 60 * 60 * 1000;
    let now_ms = 1_790_000_000_000;
    let head = Some(v1::Head { epoch: "0f".repeat(16), seq: 65, hash: "ab".repeat(32) });
    let status = GetStatusResponse {
        broker: "spiffe://shop.test/dayfly/broker".into(),
        version: "0.1.0".into(),
        head,
        bundle_digest: "cd".repeat(32),
        live_grants: 3,
        pending_requests: 2,
        instances: vec![
            instance("orders-1", 210, 4_790),
            InstanceStatus { enforced_seq: 52, ..instance("orders-2", 2_600, 2_400) },
            InstanceStatus { connected: false, ..instance("orders-3", 900, 4_100) },
            instance("orders-4", 6_000, -1),
            InstanceStatus { best_effort: true, ..instance("orders-5", 100, 4_900) },
        ],
        keys: vec![
            v1::KeyStatus { key: 1, signing: false, not_after_ms: now_ms + 300 * day },
            v1::KeyStatus { key: 2, signing: true, not_after_ms: now_ms + 3 * day },
        ],
        now_ms,
        started_at_ms: now_ms - 7_300_000,
        confirmed_ago_ms: 210,
        oldest_pending_ms: now_ms - 252_000,
        locks: 1,
        first_lock_ends_ms: now_ms + 60_000,
        locked_ids: 1,
        last_revocation: Some(v1::LastRevocation { seq: 52, at_ms: now_ms - 90_000 }),
        feed_key_ends_ms: now_ms + 300 * day,
        certificate_ends_ms: now_ms + 3_500_000,
        authority_ends_ms: now_ms - 1,
    };
    let behind = GetStatusResponse {
        broker: "spiffe://shop.test/dayfly/broker/two".into(),
        head: Some(v1::Head { seq: 60, ..v1::Head::default() }),
        ..status.clone()
    };
    let each = vec![
        ("10.0.0.1:7443".to_owned(), Ok(status.clone())),
        ("10.0.0.2:7443".to_owned(), Ok(behind)),
        ("10.0.0.3:7443".to_owned(), Err(Status::unavailable("gone"))),
    ];
    Seen { status, each }
}

#[test]
fn the_page_on_the_wall() {
    let page = anstream::adapter::strip_str(&text(&seen())).to_string();
    for line in page.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    insta::assert_snapshot!(page);
}

#[test]
fn what_is_wrong_is_coloured_and_nothing_else() {
    let told = |change: fn(&mut GetStatusResponse)| {
        let mut seen = seen();
        let status = &mut seen.status;
        (status.authority_ends_ms, status.locked_ids) = (i64::MAX, 0);
        status.instances.truncate(1);
        change(status);
        text(&seen).contains(&BAD.to_string())
    };
    assert!(!told(|_| {}));
    assert!(told(|status| status.confirmed_ago_ms = LATE_MS + 1));
    assert!(told(|status| status.keys[1].signing = false));
    assert!(told(|status| status.keys[1].not_after_ms = 0));
    assert!(told(|status| status.locked_ids = 1));
    assert!(told(|status| status.instances[0].refuses_in_ms = -1));
    assert!(told(|status| status.instances[0].best_effort = true));
}
