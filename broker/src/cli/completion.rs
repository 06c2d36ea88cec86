//! What shells complete: the script that teaches them the verbs and flags that there are.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Refused;
use super::{Cli, Context};

/// Print the script that teaches a shell to complete the verbs, flags and values of dayfly.
///
/// To try it: `source <(dayfly completion bash)`.
#[derive(Debug, Args)]
#[command(after_long_help = PLACES)]
pub struct Completion {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Where shells look for such scripts.
const PLACES: &str = "To keep it, write it to where the shell looks:
  bash        ~/.local/share/bash-completion/completions/dayfly
  zsh         _dayfly, in a directory of $fpath
  fish        ~/.config/fish/completions/dayfly.fish
  elvish      a file that ~/.config/elvish/rc.elv reads
  powershell  a file that $PROFILE reads";

impl Completion {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        context.console.line(script(self.shell).trim_end());
        Ok(())
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dayfly", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// Every verb, with those below it.
    fn verbs(command: &clap::Command) -> Vec<String> {
        let below = command.get_subcommands().flat_map(verbs);
        std::iter::once(command.get_name().to_owned()).chain(below).collect()
    }

    #[test]
    fn each_script_names_every_verb_and_flag() {
        let command = Cli::command();
        let verbs = verbs(&command);
        assert!(verbs.len() > 40, "{verbs:?}");
        for shell in Shell::value_variants() {
            let script = script(*shell);
            let words: std::collections::BTreeSet<&str> =
                script.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).collect();
            for verb in &verbs {
                assert!(words.contains(verb.as_str()), "{shell}: {verb}");
            }
            for flag in ["output", "identity", "audience", "max-staleness"] {
                let long = format!("--{flag}");
                // Fish names flags without their dashes.
                let named = words.contains(long.as_str()) || words.contains(flag);
                assert_eq!(named, flag != "max-staleness", "{shell}: {flag}");
            }
        }
    }
}
