//! `logs` of a container that logs to systemd's journal.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{LOOK, Place, Printer, Window, goes_on};
use crate::cli::LogsArgs;
use crate::log::Source;
use crate::log::journalctl::{Next, Reader, Wanted};
use crate::request::RunRequest;
use crate::state::State;

/// After the container's end, what the journal still has of it comes within this time.
const LATE: Duration = Duration::from_millis(300);

/// Prints it.
pub(super) fn print(
    (state, request): (&State, &RunRequest),
    folder: &Path,
    args: &LogsArgs,
    window: &Window,
    printer: &mut Printer<'_>,
) -> Result<u8> {
    let source = Source {
        id: &state.id,
        name: &state.name,
        image: &state.image,
        labels: &state.config.labels,
        env: &state.config.env,
    };
    // Following ends with the container, and one that has ended isn't followed.
    let follow = args.follow && goes_on(folder)? && !window.is_over();
    let wanted = Wanted { since: window.since, until: window.until, tail: args.tail.0, follow };
    let mut reader = Reader::open(&source, &request.log_options, wanted)?;
    let mut more = follow;
    loop {
        let limit = follow.then(|| if more { window.left().map_or(LOOK, |left| left.min(LOOK)) } else { LATE });
        match reader.next(limit)? {
            Next::Entry(record) => match window.place(&record) {
                Place::Before => {}
                Place::Inside => {
                    printer.print(&record)?;
                    if follow {
                        printer.flush()?;
                    }
                }
                Place::After => break,
            },
            Next::Nothing if !more => break,
            Next::Nothing => more = goes_on(folder)? && !window.is_over(),
            Next::End => break,
        }
    }
    printer.flush()?;
    Ok(0)
}
