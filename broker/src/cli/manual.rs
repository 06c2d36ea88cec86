//! The manual: a page for each verb, made of what `--help` says.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Command, CommandFactory as _};
use dayfly_agent::files;
use serde_json::json;

use super::exit::{self, Exit, Refused};
use super::{Cli, Context};

const NAME: &str = "dayfly";

/// Print a page of the manual, or write all of them.
///
/// To read one: `dayfly man token delegate | man -l -`. To keep them all, where `man` looks:
/// `dayfly man --dir ~/.local/share/man/man1`.
#[derive(Debug, Args)]
pub struct Man {
    /// The verb whose page is printed, as in `token delegate`; none for that of dayfly itself.
    #[arg(value_name = "VERB")]
    verb: Vec<String>,
    /// Write all pages to this directory, which is made where it is missing.
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        if let Some(dir) = self.dir {
            let pages = write(&command, &dir)?;
            let (count, shown) = (pages.len(), dir.display());
            let text = || format!("wrote {count} pages to {shown}");
            context.console.result(text, || json!({ "dir": dir, "pages": pages }));
            return Ok(());
        }
        let mut found = &command;
        for verb in &self.verb {
            found = found.find_subcommand(verb).ok_or_else(|| {
                let error = anyhow!("there is no verb `{}`", self.verb.join(" ").escape_debug());
                Refused::new(Exit::Usage, error)
                    .next("see `dayfly --help` for those that there are")
            })?;
        }
        context.console.line(page(found)?.trim_end());
        Ok(())
    }
}

/// Writes the page of `command` and of every verb below it; their files.
fn write(command: &Command, dir: &Path) -> Result<Vec<String>, Refused> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let mut pages = Vec::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        let name = format!("{}.1", command.get_display_name().unwrap_or(NAME));
        files::write_public(&dir.join(&name), page(command)?.as_bytes())
            .map_err(|error| Refused::new(Exit::Failed, error))?;
        pages.push(name);
        waiting.extend(command.get_subcommands());
    }
    pages.sort();
    Ok(pages)
}

/// A page in the language of `man`.
fn page(command: &Command) -> Result<String, Refused> {
    let name = command.get_display_name().unwrap_or(NAME);
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("dayfly ", env!("CARGO_PKG_VERSION")))
        .manual("Dayfly");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    text.push_str(&format!(".SH \"EXIT STATUS\"\n{}.\n", exit::CODES));
    if name != NAME {
        text.push_str(".SH \"SEE ALSO\"\n.BR dayfly (1)\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_says_what_its_help_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let pages = write(&command, dir.path()).unwrap();
        let mut waiting = vec![(String::from("dayfly"), &command)];
        let mut count = 0;
        while let Some((name, command)) = waiting.pop() {
            count += 1;
            assert!(pages.contains(&format!("{name}.1")), "{name}");
            let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
            let page = page.replace("\\-", "-");
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{flag}")), "{name}: --{flag}");
            }
            let below = command.get_subcommands();
            waiting.extend(below.map(|below| (format!("{name}-{}", below.get_name()), below)));
        }
        assert_eq!(count, pages.len());
    }
}
