//! The file of the record as evidence: checked as it is, where nothing may be written.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value as Json;

use crate::parties::Agent;
use crate::world::World;

/// Runs it as somebody whom the modes of files bind, as they do not bind root.
fn by_the_modes(command: &mut Command) -> Output {
    let run = || {
        match remove_capability_from_bounding_set(CapabilitySet::DAC_OVERRIDE) {
            // Whoever may not lose it is not root, or has lost it.
            Ok(()) | Err(Errno::PERM) => command.output().unwrap(),
            Err(error) => panic!("{error}"),
        }
    };
    // What a thread loses its children lose, and other threads keep.
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// While the broker runs; and what it left when it was killed, where nothing may be written: what
/// stands in the write-ahead log alone is checked, too, and all is afterwards what it was.
#[tokio::test]
async fn a25_a_record_is_checked_without_a_change_to_it() {
    let mut world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    agent.reading(&world).await;
    let verify = ["--output", "json", "audit", "verify", "--journal"];
    let file = world.path("broker/journal.db");
    let told = |output: &Output| serde_json::from_slice::<Json>(&output.stdout).unwrap();
    let running = told(&world.dayfly(None, &verify, &[&file]));
    let head = running["head"].as_str().unwrap();
    world.kill();
    let kept = tempfile::tempdir().unwrap();
    let at = |end: &str| kept.path().join(format!("journal.db{end}"));
    let all = ["", "-wal", "-shm"];
    for end in all {
        std::fs::copy(file.with_file_name(format!("journal.db{end}")), at(end)).unwrap();
        std::fs::set_permissions(at(end), Permissions::from_mode(0o400)).unwrap();
    }
    let set = |mode| std::fs::set_permissions(kept.path(), Permissions::from_mode(mode)).unwrap();
    let files = || {
        let names = std::fs::read_dir(kept.path()).unwrap().map(|file| file.unwrap().path());
        names.map(|path| (std::fs::read(&path).unwrap(), path)).collect::<BTreeSet<_>>()
    };
    let check = || {
        let before = files();
        let mut command = world.command(None, &verify, &[&at("")]);
        set(0o500);
        assert!(!by_the_modes(Command::new("touch").arg(at("-new"))).status.success());
        let checked = by_the_modes(command.args(["--head", head]));
        set(0o700);
        assert_eq!(files(), before);
        checked
    };
    assert!(told(&check())["entries"].as_u64() >= running["entries"].as_u64());
    std::fs::remove_file(at("-shm")).unwrap();
    assert!(check().status.success());
    // It was in the write-ahead log, and nowhere else.
    std::fs::remove_file(at("-wal")).unwrap();
    assert_eq!(check().status.code(), Some(1));
    std::fs::write(at("-shm"), "").unwrap();
    let missing = check();
    assert_eq!(missing.status.code(), Some(20));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("`-wal` does not") && said.contains("journal.db-wal"), "{said}");
}
