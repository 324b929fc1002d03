//! `import`: a root file system (tar stream or folder) becomes an image of one layer.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::archive::{Input, Opened};
use crate::change;
use crate::commit::{Tree, commit, prepare};
use crate::config::host_architecture;
use crate::error::{Error, Failure, Result};
use crate::folder::FolderTar;
use crate::load::{LoadOptions, Loaded, unpack_stream};
use crate::meter::{Budget, Stored};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, write_json};

/// How to import.
#[derive(Default)]
pub struct ImportOptions {
    /// Limits, device policy and so on.
    pub load: LoadOptions,
    /// Dockerfile lines for the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
    /// Comment in the image's history; docker's "Imported from …" if None.
    pub message: Option<String>,
}

impl Store {
    /// Makes an image of a root file system. The configuration is as empty as docker's: no command, no environment.
    pub fn import(&self, input: Input, name: Option<&Reference>, options: &ImportOptions) -> Result<Loaded> {
        // What is wrong with the request is said before the long work.
        let config = change::apply(&options.changes)?;
        self.sweep()?;
        let workspace = self.workspace()?;
        let archive = input.name();
        let limits = &options.load.limits;
        let budget = Budget::new(limits);
        let progress = Progress::new(options.load.progress.as_ref());
        let (path, folder) = workspace.folder("layer", 0o755)?;
        let devices = options.load.devices;
        let result = match input.open()? {
            Opened::Folder(fd) => {
                let mut tar = Stored::new(FolderTar::new(fd), None);
                unpack_stream(&mut tar, &folder, devices, &budget)
            }
            Opened::File(file) | Opened::Stream(file) => {
                let total = file.metadata().map_or(0, |meta| meta.len());
                let source = BufReader::with_capacity(128 << 10, file);
                unpack_stream(&mut Stored::new(source, Some((&progress, total))), &folder, devices, &budget)
            }
        };
        let (record, ended) = result.map_err(|failure| failure.of(&archive, self.dir()))?;
        if !ended {
            let why = "it ends without tar's end marker: not a tar archive, or truncated";
            let failure = Failure::Refused { entry: None, why: why.into() };
            return Err(failure.of(&archive, self.dir()));
        }
        let diff_id = record.diff_id;
        let created = rfc3339(SystemTime::now());
        let comment = match (&options.message, &input) {
            (Some(message), _) => message.clone(),
            (None, Input::Stdin) => "Imported from -".into(),
            (None, _) => format!("Imported from {archive}"),
        };
        let document = json!({
            "architecture": host_architecture(),
            "comment": comment,
            "config": config,
            "created": created,
            "history": [{"created": created, "comment": comment}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        write_json(&path.with_extension("json"), &record)?;
        let mut trees = BTreeMap::from([(diff_id, Tree { path, record })]);
        let raw = document.to_string().into_bytes();
        let names = name.cloned().into_iter().collect();
        let lost = || Error::Refused { archive: archive.clone(), entry: None, why: "its layer got lost".into() };
        let image = prepare(self, &workspace, &trees, raw, None, vec![diff_id], names)?.ok_or_else(lost)?;
        let loaded = commit(self, &workspace, &mut trees, &[image], options.load.sync)?;
        loaded.and_then(|mut loaded| loaded.pop()).ok_or_else(lost)
    }
}

/// UTC with nanoseconds, as docker writes it.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date of the Gregorian calendar: count from 0000-03-01, so that leap days end a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanoseconds = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000007Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00.000000007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000007Z");
    }
}
