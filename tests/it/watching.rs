//! Pages that are drawn anew for as long as somebody looks: on a terminal, and piped.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_verifier::time::{Clock as _, SystemClock};
use rustix::process::{Pid, Signal, kill_process};

use crate::parties::Agent;
use crate::world::{DAYFLY, World};

/// What a terminal shows of what was written to it, as far as these pages go.
#[derive(Default)]
struct Terminal {
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    saved: (usize, usize),
    hidden: bool,
    cleared: usize,
}

impl Terminal {
    fn of(written: &str) -> Self {
        let mut terminal = Self::default();
        let mut chars = written.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => match chars.next() {
                    Some('7') => terminal.saved = terminal.at,
                    Some('8') => terminal.at = terminal.saved,
                    Some('[') => {
                        let mut given = String::new();
                        let end = chars.find(|c| {
                            given.push(*c);
                            c.is_ascii_alphabetic()
                        });
                        given.pop();
                        terminal.control(&given, end.unwrap_or(' '));
                    }
                    other => panic!("an escape that is not known: {other:?}"),
                },
                '\r' => terminal.at.1 = 0,
                '\n' => terminal.at.0 += 1,
                c => terminal.put(c),
            }
        }
        terminal
    }

    fn control(&mut self, given: &str, end: char) {
        let (row, column) = self.at;
        match (end, given) {
            ('m', _) => {}
            ('H', "") => self.at = (0, 0),
            ('K', "") => self.lines.iter_mut().skip(row).take(1).for_each(|l| l.truncate(column)),
            ('J', "") => {
                self.control("", 'K');
                self.lines.truncate(row + 1);
            }
            ('J', "2") => {
                self.lines.clear();
                self.cleared += 1;
            }
            ('l', "?25") => self.hidden = true,
            ('h', "?25") => self.hidden = false,
            other => panic!("a control that is not known: {other:?}"),
        }
    }

    fn put(&mut self, c: char) {
        let (row, column) = self.at;
        self.lines.resize(self.lines.len().max(row + 1), Vec::new());
        let line = &mut self.lines[row];
        line.resize(line.len().max(column + 1), ' ');
        line[column] = c;
        self.at.1 += 1;
    }

    fn text(&self) -> String {
        let line = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned() + "\n";
        self.lines.iter().map(line).collect()
    }
}

/// A command that goes on, and what it wrote so far.
struct Running {
    child: Child,
    input: ChildStdin,
    written: Arc<Mutex<String>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let written = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&written);
        std::thread::spawn(move || {
            let (mut buffer, mut bytes) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..read]);
                let whole = std::str::from_utf8(&bytes).map_or_else(|e| e.valid_up_to(), str::len);
                let whole: Vec<u8> = bytes.drain(..whole).collect();
                to.lock().unwrap().push_str(std::str::from_utf8(&whole).unwrap());
            }
        });
        Self { child, input, written }
    }

    /// `dayfly` as olga or ana, on a terminal of its own.
    fn on_a_terminal(world: &World, path: &str, args: &str) -> Self {
        let identity = world.identity(path);
        let line = format!("exec {DAYFLY} --identity {} {args}", identity.display());
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-f", "-c", &line, "/dev/null"]).env("TERM", "xterm");
        command.env_remove("NO_COLOR").env_remove("DAYFLY_OUTPUT").env("SHELL", "/bin/sh");
        Self::start(command)
    }

    fn terminal(&self) -> Terminal {
        Terminal::of(&self.written.lock().unwrap())
    }

    /// Waits until what was written is so.
    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = SystemClock.uptime().saturating_add(Duration::from_secs(30));
        loop {
            let written = self.written.lock().unwrap().clone();
            if holds(&written) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: ended with {ended:?}: {written}");
            assert!(SystemClock.uptime() < deadline, "{what}: {written}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the terminal shows it.
    fn shows(&mut self, what: &str, holds: impl Fn(&str) -> bool) {
        self.until(what, |written| holds(&Terminal::of(written).text()));
    }

    fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ctrl-C: ends well, and leaves the terminal as it was.
    fn interrupted(mut self) {
        assert!(self.terminal().hidden, "the cursor is not hidden");
        self.input.write_all(b"\x03").unwrap();
        assert_eq!(self.ended(), Some(0));
        self.until("the cursor comes back", |written| !Terminal::of(written).hidden);
        let terminal = self.terminal();
        assert_eq!(terminal.cleared, 1, "not drawn in place");
        let below = terminal.lines.iter().skip(terminal.at.0);
        let below: String = below.flatten().collect();
        assert!(!below.contains("Ctrl-C ends this"), "{}", terminal.text());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Counts lines that begin so.
fn lines(page: &str, begin: &str) -> usize {
    page.lines().filter(|line| line.starts_with(begin)).count()
}

#[tokio::test]
async fn status_is_drawn_in_place_and_outlives_its_broker() {
    let mut world = World::start("");
    let mut watching = Running::on_a_terminal(&world, "person/olga", "status --watch");
    watching.shows("the first page", |page| page.contains("pending       0"));
    let agent = Agent::new(&world, "agent/refunds").await;
    agent.ask("read orders/prod/o-17", None).await;
    watching.shows("the request", |page| page.contains("pending       1, the oldest for"));
    let again = |page: &str| {
        !page.contains("no answer") && page.contains("pending       1, the oldest for")
    };
    let broker = Pid::from_child(world.process());
    kill_process(broker, Signal::STOP).unwrap();
    watching.shows("that it hangs", |page| page.contains("did not answer within 2 s"));
    kill_process(broker, Signal::CONT).unwrap();
    watching.shows("it again", again);
    world.kill();
    watching.shows("that nobody answers", |page| page.contains("no answer at "));
    world.serve();
    watching.shows("the broker again", again);
    let page = watching.terminal().text();
    for once in ["broker  ", "log  ", "authority  ", "no gateway follows", "Ctrl-C ends this"] {
        assert_eq!(lines(&page, once), 1, "{once}: {page}");
    }
    watching.interrupted();
}

#[tokio::test]
async fn what_waits_is_drawn_in_place_as_it_comes_and_goes() {
    let world = World::start("");
    let mut watching = Running::on_a_terminal(&world, "person/ana", "pending --watch");
    watching.shows("nothing", |page| page.contains("nothing waits for you"));
    let agent = Agent::new(&world, "agent/refunds").await;
    let one = agent.ask("read orders/prod/o-17", None).await;
    let other = agent.ask("read orders/prod/o-18", None).await;
    watching.shows("two requests", |page| {
        page.contains("read orders/prod/o-17") && page.contains("read orders/prod/o-18")
    });
    // Time runs on the page, too.
    let left = |page: &str| page.lines().nth(1).unwrap_or_default().get(8..17).map(str::to_owned);
    let before = left(&watching.terminal().text());
    watching.shows("less time", |page| left(page) != before);
    let deny = |grant: &str| {
        let denied = world.run("person/ana", &["deny", grant]);
        assert!(denied.status.success(), "{denied:?}");
    };
    deny(&one.grant_id);
    watching.shows("one of them", |page| !page.contains("o-17") && page.contains("o-18"));
    deny(&other.grant_id);
    watching.shows("nothing again", |page| page.contains("nothing waits for you"));
    let page = watching.terminal().text();
    assert!(!page.contains("WORKLOAD") && !page.contains("o-18"), "left over: {page}");
    watching.interrupted();
}

#[test]
fn piped_pages_are_plain_and_follow_each_other() {
    let world = World::start("");
    for (path, args, page) in [
        ("person/olga", &["status", "--watch"][..], "live grants   0\n"),
        ("person/ana", &["pending", "--watch"], "nothing waits for you\n"),
        ("person/olga", &["status", "--watch", "--output", "json"], "\"live_grants\":0"),
    ] {
        let identity = world.identity(path);
        let mut watching = Running::start(world.command(Some(&identity), args, &[]));
        let pages = if path == "person/olga" { 2 } else { 1 };
        watching.until("pages", |written| written.matches(page).count() >= pages);
        kill_process(Pid::from_child(&watching.child), Signal::INT).unwrap();
        assert_eq!(watching.ended(), Some(0), "{args:?}");
        let written = watching.written.lock().unwrap().clone();
        assert!(!written.contains('\x1b'), "{written}");
    }
    // Who may not look is told so, and not asked to wait.
    let refused = world.run("agent/refunds", &["status", "--watch"]);
    assert_eq!(refused.status.code(), Some(11), "{refused:?}");
}

#[test]
fn what_nobody_reads_any_more_ends_and_what_is_not_written_is_no_success() {
    let world = World::start("");
    let olga = world.identity("person/olga");
    for args in [&["audit", "tail"][..], &["status", "--watch"]] {
        let mut going_on = world.command(Some(&olga), args, &[]);
        let mut going_on = going_on.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(going_on.stdout.take());
        assert_eq!(going_on.wait().unwrap().code(), Some(0), "{args:?}");
    }
    for args in [&["man"][..], &["completion", "bash"], &["audit", "tail", "--once"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let lost = world.command(Some(&olga), args, &[]).stdout(full).output().unwrap();
        assert_eq!(lost.status.code(), Some(1), "{args:?}: {lost:?}");
        assert!(String::from_utf8_lossy(&lost.stderr).contains("next:"), "{lost:?}");
    }
}

#[tokio::test]
async fn status_tells_what_there_is() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let olga = |args: &[&str]| {
        let done = world.run("person/olga", &[&["--output", "json"][..], args].concat());
        assert!(done.status.success(), "{done:?}");
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    let quiet = olga(&["status"]);
    for nothing in ["last_revocation", "oldest_pending_ms", "first_lock_ends_ms"] {
        assert!(quiet[nothing].is_null(), "{quiet}");
    }
    let filed = agent.ask("read orders/prod/o-17", None).await.filed_at_ms;
    agent.ask("read orders/prod/o-18", None).await;
    olga(&["lock", "--task", "case-1", "--for", "9m"]);
    let first = olga(&["lock", "--task", "case-2", "--for", "5m"]);
    let revoked = olga(&["revoke", "--task", "case-8"]);
    olga(&["lock", "--task", "case-3", "--for", "7m"]);
    let status = olga(&["status"]);
    let number = |name: &str| status[name].as_i64().unwrap_or_else(|| panic!("{name}: {status}"));
    assert_eq!((number("pending_requests"), number("oldest_pending_ms")), (2, filed));
    assert_eq!(number("locks"), 3);
    assert_eq!(status["first_lock_ends_ms"], first["until_ms"]);
    assert_eq!(status["last_revocation"]["seq"], revoked["seq"]);
    let at = status["last_revocation"]["at_ms"].as_i64().unwrap();
    let now = number("now_ms");
    assert!(filed <= at && at <= now, "{status}");
    let hour = 60 * 60 * 1000;
    assert!(now < number("certificate_ends_ms") && number("certificate_ends_ms") <= now + hour);
    assert!(number("authority_ends_ms") > now + 24 * hour, "{status}");
    assert!(number("feed_key_ends_ms") > now && number("confirmed_ago_ms") < hour);
    let each = status["brokers"].as_array().unwrap();
    assert_eq!((each.len(), &each[0]["head"]), (1, &status["head"]), "{status}");
}
