//! The `dayfly` command.

fn main() -> std::process::ExitCode {
    dayfly_broker::cli::main()
}
