//! `turnpike history`.

use std::process::ExitCode;

use super::{HistoryArgs, complain, exit, print, print_json};
use crate::accounting::{History, Moment, history_text};
use crate::admin::Error;

/// `turnpike history`.
pub fn history(args: &HistoryArgs) -> ExitCode {
    if !args.file.exists() {
        complain(format_args!(
            "there is no {}: name the `file` of [accounting] with --file; without that section a server keeps no history",
            args.file.display()
        ));
        return ExitCode::from(exit::FAILED);
    }
    let read =
        History::open(&args.file).and_then(|history| history.ask(&args.question(), Moment::now()));
    let sessions = match read {
        Ok(sessions) => sessions,
        Err(rusqlite::Error::InvalidQuery) => {
            complain(format_args!(
                "{} is not an accounting file of this turnpike",
                args.file.display()
            ));
            return ExitCode::from(exit::FAILED);
        }
        Err(error) => {
            complain(format_args!("{}: {error}", args.file.display()));
            return ExitCode::from(exit::FAILED);
        }
    };
    let printed = match args.json {
        true => print_json(&sessions),
        false => print(&history_text(&sessions)).map_err(Error::from),
    };
    if let Err(error) = printed {
        complain(error);
        return ExitCode::from(exit::FAILED);
    }
    if sessions.is_empty() {
        complain("no session fits");
        return ExitCode::from(exit::FAILED);
    }
    // A cut list must not be taken for all there is.
    if u32::try_from(sessions.len()) == Ok(args.limit) {
        complain(format_args!(
            "these are the latest {}; there may be more (--limit)",
            args.limit
        ));
    }
    ExitCode::from(exit::OK)
}
