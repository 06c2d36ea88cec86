//! What a shell completes, and the manual, as the built binary hands them out.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use crate::world::DAYFLY;

fn dayfly(args: &[&str]) -> Output {
    Command::new(DAYFLY).args(args).output().unwrap()
}

fn text(args: &[&str]) -> String {
    let output = dayfly(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs below `verb`, as its help lists them.
fn listed(verb: &[&str]) -> BTreeSet<String> {
    let help = text(&[verb, &["-h"]].concat());
    let Some((_, commands)) = help.split_once("Commands:\n") else { return BTreeSet::new() };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    // Further lines of a description are indented more.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

#[test]
fn bash_completes_the_verbs_that_help_lists() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("dayfly.bash");
    std::fs::write(&script, text(&["completion", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&script).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let offered = |verb: &[&str], begun: &str| {
        let ask = "source \"$1\"; shift; COMP_WORDS=(dayfly \"$@\"); COMP_CWORD=$#; \
                   _dayfly dayfly \"${COMP_WORDS[$#]}\" \"${COMP_WORDS[$#-1]}\"; \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", ask, "bash"]).arg(&script).args(verb).arg(begun);
        let offered = bash.output().unwrap();
        assert!(offered.status.success(), "{offered:?}");
        let offered = String::from_utf8(offered.stdout).unwrap();
        offered.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let mut below = 0;
    for verb in listed(&[]) {
        assert!(offered(&[], "").contains(&verb), "{verb}");
        for second in listed(&[&verb]) {
            below += 1;
            assert!(offered(&[&verb], "").contains(&second), "{verb} {second}");
        }
    }
    assert!(below > 15, "{below}");
    assert_eq!(offered(&["token"], "del"), BTreeSet::from(["delegate".to_owned()]));
    assert_eq!(offered(&["revoke"], "--wa"), BTreeSet::from(["--wait".to_owned()]));
}

#[test]
fn the_manual_has_a_page_for_each_verb() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    let wrote = text(&["man", "--dir", man.to_str().unwrap()]);
    let pages = std::fs::read_dir(&man).unwrap().count();
    assert_eq!(wrote.trim_end(), format!("wrote {pages} pages to {}", man.display()));
    let mut names = vec!["dayfly".to_owned()];
    for verb in listed(&[]) {
        let below = listed(&[&verb]).into_iter();
        names.extend(below.map(|below| format!("dayfly-{verb}-{below}")));
        names.push(format!("dayfly-{verb}"));
    }
    for name in &names {
        let page = std::fs::read_to_string(man.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH ") && page.contains(".SH NAME"), "{name}");
    }
    assert_eq!(names.len(), pages);
    let one = text(&["man", "token", "delegate"]);
    assert_eq!(one, std::fs::read_to_string(man.join("dayfly-token-delegate.1")).unwrap());
    for bad in [&["man", "nonsense"][..], &["man", "token", "help"], &["completion", "tcsh"]] {
        assert_eq!(dayfly(bad).status.code(), Some(2), "{bad:?}");
    }
}
