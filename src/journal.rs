//! The journal: what stays on the host when every process is dead, written before it is made.
//!
//! A file of JSON lines that is only appended to. The first line is the [`Header`]; each further line is one [`Residue`].
//! There are no 'done' records: undo is idempotent, and 'not there' is success. What is undone while the container goes on
//! is struck out ([`Journal::strike`]). One write per stage; no fsync, because a journal
//! must outlive the death of any process, not of the machine (after a reboot the kernel's things are gone too, which
//! the header's boot id tells).
//!
//! The owner holds an flock on the journal: the kernel drops it with the last process that shares it (the monitor and
//! its cleaner), so a journal that can be locked has lost its owner.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};

use crate::crash;
use crate::process::Process;
use crate::residue::Residue;

/// The format that this program writes; it reads this one and older ones.
pub const FORMAT: u32 = 1;
/// A journal holds tens of entries; one larger than this is damage, not data.
const MAX_BYTES: u64 = 4 << 20;
/// What a line begins with whose entry is undone and no longer this container's.
const STRUCK: u8 = b'#';

/// The journal's first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Format version.
    pub minidock_journal: u32,
    /// Whose journal: a container id or a network's name.
    pub owner: String,
    /// `/proc/sys/kernel/random/boot_id` when it was begun.
    pub boot_id: String,
    /// The container is to vanish when it ends (`--rm`).
    #[serde(default)]
    pub auto_remove: bool,
    /// Inode of the network namespace that the entries' links and rules are in.
    #[serde(default)]
    pub netns: Option<u64>,
    /// The command whose end is the container's: `minidock session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Process>,
    /// The container, until it has a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<Birth>,
    /// The image that the container uses, so that it isn't removed meanwhile.
    #[serde(default)]
    pub image: Option<String>,
    /// The volumes that the container uses, named and anonymous, for the same reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// What is known of a container while it is being made, for `ps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Birth {
    /// RFC 3339.
    pub created: String,
    /// The image as the user named it.
    pub image: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// The image's and the user's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What the entries of a journal hang on, beside their container.
#[derive(Debug)]
pub struct Present {
    /// This boot's id.
    pub boot_id: String,
    /// This network namespace's inode.
    pub netns: Option<u64>,
}

/// What a journal says.
#[derive(Debug)]
pub struct Contents {
    /// The first line; none when the owner died before writing it.
    pub header: Option<Header>,
    /// The entries in the order of writing.
    pub entries: Vec<Residue>,
    /// Lines of a kind that this program doesn't know (a newer one's), kept in their places: so many entries come before
    /// each.
    pub unknown: Vec<(usize, String)>,
}

/// An open journal, locked by this process.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// The entries, as long as all that happened to the journal is that this process has begun and lengthened it.
    written: RefCell<Option<Vec<Residue>>>,
}

impl Journal {
    /// Begins a journal that must not exist yet: header and first entries in one write. It gets its name when it's locked
    /// and written, so that nobody ever finds it free or empty while its maker lives.
    pub fn create(path: &Path, header: &Header, first: &[Residue]) -> Result<Journal> {
        let unborn = path.with_extension("new");
        let _ = std::fs::remove_file(&unborn); // a maker's that was killed; the caller keeps other living ones away
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&unborn)
            .with_context(|| format!("cannot create the journal {}", path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("cannot lock the journal {}", path.display()))?;
        let journal = Journal { file, path: path.to_path_buf(), written: RefCell::new(Some(vec![])) };
        let mut text = serde_json::to_string(header)?;
        text.push('\n');
        journal.write(text, first)?;
        renameat_with(CWD, &unborn, CWD, path, RenameFlags::NOREPLACE)
            .with_context(|| format!("cannot create the journal {}", path.display()))?;
        Ok(journal)
    }

    /// The descriptor that the lock hangs on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether a living process owns it.
    pub fn is_owned(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Opens and locks an existing journal whose owner is gone. `None`: somebody holds it, or it doesn't exist.
    pub fn take_over(path: &Path) -> Result<Option<Journal>> {
        let file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open the journal {}", path.display())),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot lock the journal {}", path.display())),
        }
        // The last owner may have removed the file between our open and our lock.
        let journal = Journal { file, path: path.into(), written: RefCell::default() };
        Ok(journal.is_current().then_some(journal))
    }

    /// Records residues before their effect, in one write. Nothing to record is no write.
    pub fn record(&self, residues: &[Residue]) -> Result<()> {
        if residues.is_empty() {
            return Ok(());
        }
        self.write(String::new(), residues)
    }

    fn write(&self, mut text: String, residues: &[Residue]) -> Result<()> {
        for residue in residues {
            text.push_str(&serde_json::to_string(residue)?);
            text.push('\n');
        }
        // More than is ever read again must not be written: its effects could never be undone.
        let now = self.file.metadata().with_context(|| format!("cannot look at {}", self.path.display()))?.len();
        if now + text.len() as u64 > MAX_BYTES {
            bail!(
                "what is to be recorded in {} is more than its {} MiB; publish fewer ports, or neighbours as ranges \
                 (-p 8000-8999:8000-8999)",
                self.path.display(),
                MAX_BYTES >> 20
            );
        }
        crash::point(crash::When::Before);
        (&self.file)
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write the journal {}", self.path.display()))?;
        crash::point(crash::When::After);
        if let Some(written) = self.written.borrow_mut().as_mut() {
            written.extend_from_slice(residues);
        }
        Ok(())
    }

    /// Begins the journal anew for another boot or another network namespace, with the same owner and entries: a new
    /// file, locked before it takes the old one's place. Nothing of the former boot or namespace may be left in it.
    pub fn renew(&mut self, present: Present) -> Result<()> {
        let contents = self.contents()?;
        let Some(header) = contents.header else { bail!("the journal {} has no header", self.path.display()) };
        if header.boot_id == present.boot_id && header.netns == present.netns {
            return Ok(());
        }
        let header = Header { boot_id: present.boot_id, netns: present.netns, ..header };
        let new = self.written_anew(&header, &contents.entries, &contents.unknown)?;
        new.take_place()?;
        *self = new;
        Ok(())
    }

    /// The same journal with other entries, as a new file with a lock of its own, until [`Journal::take_place`] beside
    /// this one. Whoever shares this one's lock doesn't share the new one's.
    pub fn successor(&self, entries: &[Residue]) -> Result<Journal> {
        let mut contents = self.contents()?;
        let Some(header) = contents.header else { bail!("the journal {} has no header", self.path.display()) };
        // New entries go to the front.
        let more = entries.len().saturating_sub(contents.entries.len());
        contents.unknown.iter_mut().for_each(|(before, _)| *before += more);
        self.written_anew(&header, entries, &contents.unknown)
    }

    fn unborn(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn written_anew(&self, header: &Header, entries: &[Residue], unknown: &[(usize, String)]) -> Result<Journal> {
        let _ = std::fs::remove_file(self.unborn()); // a former owner's that was killed
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.unborn())
            .with_context(|| format!("cannot rewrite the journal {}", self.path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("cannot lock the journal {}", self.path.display()))?;
        let new = Journal { file, path: self.path.clone(), written: RefCell::default() };
        let mut text = serde_json::to_string(header)?;
        text.push('\n');
        // In the order of their making: undo goes backwards, and what is kept must stay the beginning (keep_only).
        let mut unknown = unknown.iter().peekable();
        for number in 0..=entries.len() {
            while let Some((_, line)) = unknown.next_if(|(before, _)| *before <= number || number == entries.len()) {
                text.extend([line, "\n"]);
            }
            if let Some(entry) = entries.get(number) {
                text.push_str(&serde_json::to_string(entry)?);
                text.push('\n');
            }
        }
        new.write(text, &[])?;
        Ok(new)
    }

    /// Makes a successor the journal, in place of the former one.
    pub fn take_place(&self) -> Result<()> {
        std::fs::rename(self.unborn(), &self.path)
            .with_context(|| format!("cannot rewrite the journal {}", self.path.display()))
    }

    /// Whether this is the container's journal still: no successor has taken its place.
    pub fn is_current(&self) -> bool {
        let now = rustix::fs::stat(&self.path).map(|now| now.st_ino);
        matches!((now, rustix::fs::fstat(&self.file)), (Ok(now), Ok(own)) if now == own.st_ino)
    }

    /// Reads what this journal says.
    pub fn contents(&self) -> Result<Contents> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        parse_reader(file, &self.path)
    }

    /// The entries of [`Journal::contents`]; from memory where this process alone has written them, which only the journal's
    /// owner may trust in.
    pub fn entries(&self) -> Result<Vec<Residue>> {
        match self.written.borrow().as_ref() {
            Some(written) => Ok(written.clone()),
            None => Ok(self.contents()?.entries),
        }
    }

    /// Strikes out entries that have been undone, so that the last undo doesn't meet what is another's by then. `is_meant`
    /// gets each entry's index in [`Journal::contents`]. One byte of each line is overwritten, the last lines are cut off:
    /// killed on the way, it has struck out some, which undo takes as well as all or none.
    pub fn strike(&self, is_meant: impl Fn(usize, &Residue) -> bool) -> Result<()> {
        let what = || format!("cannot strike out entries of the journal {}", self.path.display());
        self.written.take();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text)?;
        // pwrite(2), BUGS: a file opened to append to is appended to wherever one writes.
        let writer = OpenOptions::new().write(true).open(&self.path).with_context(what)?;
        if !self.is_current() {
            bail!("the journal {} has been replaced", self.path.display());
        }
        let (mut start, mut live, mut end, mut any) = (0, 0, 0, false);
        crash::point(crash::When::Before);
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let mut struck = line.as_bytes().first() == Some(&STRUCK);
            if number > 0
                && !struck
                && let Ok(residue) = serde_json::from_str(line)
            {
                struck = is_meant(live, &residue);
                live += 1;
                if struck {
                    any = true;
                    writer.write_all_at(&[STRUCK], start).with_context(what)?;
                }
            }
            start += line.len() as u64;
            if !struck {
                end = start;
            }
        }
        if any {
            self.file.set_len(end).with_context(what)?;
        }
        crash::point(crash::When::After);
        Ok(())
    }

    /// Whether there's room for many more entries: a run in which networks come and go for ever fills it.
    pub fn has_room(&self) -> bool {
        self.file.metadata().is_ok_and(|now| now.len() < MAX_BYTES / 2)
    }

    /// Replaces all entries by `kept`, after the others have been undone. Shrinks in place, because the lock is on this
    /// very file: the kept entries are the journal's own beginning, so a crash at any point leaves a valid journal.
    pub fn keep_only(&self, kept: &[Residue]) -> Result<()> {
        self.written.take();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text)?;
        let mut length = text.find('\n').map_or(text.len(), |end| end + 1);
        let mut lines = text[length..].split_inclusive('\n');
        for residue in kept {
            // By meaning, not by letter: another version writes fields that this one doesn't know, and whole entries,
            // which stay among those that are kept.
            loop {
                let Some(line) = lines.next() else {
                    bail!("the journal {} does not begin with what is to be kept", self.path.display());
                };
                length += line.len();
                match serde_json::from_str::<Residue>(line) {
                    Ok(other) if other == *residue => break,
                    Ok(_) => bail!("the journal {} does not begin with what is to be kept", self.path.display()),
                    Err(_) => {}
                }
            }
        }
        crash::point(crash::When::Before);
        self.file.set_len(length as u64).with_context(|| format!("cannot shorten {}", self.path.display()))?;
        crash::point(crash::When::After);
        Ok(())
    }
}

/// Reads a journal that somebody else may own.
pub fn read(path: &Path) -> Result<Contents> {
    let file = File::open(path).with_context(|| format!("cannot open the journal {}", path.display()))?;
    parse_reader(&file, path)
}

fn parse_reader(mut file: impl Read, path: &Path) -> Result<Contents> {
    let mut text = String::new();
    file.by_ref()
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the journal {}", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        bail!("the journal {} is larger than {MAX_BYTES} bytes: damaged; look at it, then remove it", path.display());
    }
    parse(&text).with_context(|| format!("the journal {} is damaged", path.display()))
}

/// Parses a journal's text. A last line without its newline never took effect; any other damage is an error.
fn parse(text: &str) -> Result<Contents> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // what follows the last newline: nothing, or a write that was cut off
    let mut lines = lines.into_iter().enumerate();
    let Some((_, first)) = lines.next() else {
        return Ok(Contents { header: None, entries: vec![], unknown: vec![] });
    };
    let header: Header = serde_json::from_str(first).context("line 1 is not a journal's header")?;
    let mut contents = Contents { header: Some(header), entries: vec![], unknown: vec![] };
    for (index, line) in lines.filter(|(_, line)| line.as_bytes().first() != Some(&STRUCK)) {
        let value: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("line {} is not JSON", index + 1))?;
        match serde_json::from_value(value) {
            Ok(residue) => contents.entries.push(residue),
            Err(_) => contents.unknown.push((contents.entries.len(), line.to_string())),
        }
    }
    Ok(contents)
}

/// This boot's id (proc(5)); empty where procfs doesn't tell, which then equals only itself.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            minidock_journal: FORMAT,
            owner: "c".into(),
            boot_id: "b".into(),
            auto_remove: false,
            netns: None,
            image: None,
            birth: None,
            session: None,
            volumes: vec![],
            other: serde_json::Map::new(),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("minidock-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_is_recorded_is_read_back_and_shrinks_to_what_is_kept() {
        let path = scratch("kept");
        let name = Residue::Name { name: "web".into(), id: "c".into() };
        let lease = Residue::Lease { network: "bridge".into(), address: [172, 17, 0, 2].into(), id: "c".into() };
        let journal = Journal::create(&path, &header(), std::slice::from_ref(&name)).unwrap();
        journal.record(std::slice::from_ref(&lease)).unwrap();
        assert_eq!(journal.contents().unwrap().entries, [name.clone(), lease.clone()]);
        assert!(journal.keep_only(std::slice::from_ref(&lease)).is_err());
        journal.keep_only(std::slice::from_ref(&name)).unwrap();
        assert_eq!(journal.contents().unwrap().entries, [name]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_struck_out_is_gone_and_its_room_too() {
        let path = scratch("struck");
        let name = |name: &str| Residue::Name { name: name.into(), id: "c".into() };
        let journal = Journal::create(&path, &header(), &[name("a")]).unwrap();
        let empty = std::fs::metadata(&path).unwrap().len();
        for _ in 0..50 {
            journal.record(&[name("b"), name("c"), name("d")]).unwrap();
            journal.strike(|index, entry| index == 2 || *entry == name("b")).unwrap();
            assert_eq!(journal.contents().unwrap().entries, [name("a"), name("d")]);
            journal.record(&[name("b")]).unwrap();
            assert_eq!(
                journal.contents().unwrap().entries,
                [name("a"), name("d"), name("b")],
                "an entry may come again"
            );
            journal.strike(|index, _| index > 0).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), empty);
        }
        journal.record(&[name("b"), name("c")]).unwrap();
        journal.strike(|_, entry| *entry == name("b")).unwrap();
        journal.keep_only(&[name("a")]).unwrap();
        assert_eq!(journal.contents().unwrap().entries, [name("a")]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_could_not_be_read_again_is_refused_before_it_is_written() {
        let path = scratch("large");
        let name = |name: &str| Residue::Name { name: name.into(), id: "c".into() };
        let journal = Journal::create(&path, &header(), &[name("a")]).unwrap();
        let most = vec![name(&"b".repeat(1 << 20)); 3];
        journal.record(&most).unwrap();
        let error = journal.record(&[name(&"c".repeat(1 << 20))]).unwrap_err();
        assert!(error.to_string().contains("publish fewer ports"), "{error}");
        let left = MAX_BYTES - std::fs::metadata(&path).unwrap().len();
        let around = serde_json::to_string(&name("")).unwrap().len() as u64 + 1;
        journal.record(&[name(&"d".repeat((left - around) as usize))]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_BYTES);
        assert_eq!(journal.contents().unwrap().entries.len(), 5, "the largest journal is read");
        journal.record(&[name("e")]).unwrap_err();
        journal.keep_only(&[name("a")]).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_journal_with_an_owner_cannot_be_taken_over() {
        let path = scratch("lock");
        let journal = Journal::create(&path, &header(), &[]).unwrap();
        assert!(Journal::take_over(&path).unwrap().is_none());
        drop(journal);
        assert!(Journal::take_over(&path).unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_cut_off_last_line_never_took_effect_and_other_damage_is_told() {
        let head = serde_json::to_string(&header()).unwrap();
        let entry = serde_json::to_string(&Residue::Name { name: "a".into(), id: "c".into() }).unwrap();
        let cut = parse(&format!("{head}\n{entry}\n{}", &entry[..9])).unwrap();
        assert_eq!(cut.entries.len(), 1);
        assert!(parse("").unwrap().header.is_none());
        assert!(parse(&head[..10]).unwrap().header.is_none());
        let error = parse(&format!("{head}\nnonsense\n{entry}\n")).unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }

    #[test]
    fn an_unknown_kind_is_kept_and_reported() {
        let head = serde_json::to_string(&header()).unwrap();
        let contents = parse(&format!("{head}\n{{\"wormhole\":{{\"to\":\"mars\"}}}}\n")).unwrap();
        assert_eq!(contents.unknown.len(), 1);
    }

    #[test]
    fn an_unknown_entry_keeps_its_place_in_a_journal_that_is_written_anew() {
        let path = scratch("places");
        let name = |name: &str| Residue::Name { name: name.into(), id: "c".into() };
        let worm = |number: u32| format!("{{\"wormhole\":{{\"to\":{number}}}}}\n");
        let mut journal = Journal::create(&path, &header(), &[name("a")]).unwrap();
        (&journal.file).write_all(worm(1).as_bytes()).unwrap();
        journal.record(&[name("b")]).unwrap();
        (&journal.file).write_all(worm(2).as_bytes()).unwrap();
        let lines = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().skip(1).map(|line| line.to_string() + "\n").collect::<Vec<_>>()
        };
        let line = |residue: &Residue| serde_json::to_string(residue).unwrap() + "\n";
        let expected = [line(&name("a")), worm(1), line(&name("b")), worm(2)];
        journal.renew(Present { boot_id: "another".into(), netns: None }).unwrap();
        assert_eq!(lines(&path), expected);
        let successor = journal.successor(&[name("new"), name("a"), name("b")]).unwrap();
        successor.take_place().unwrap();
        assert_eq!(lines(&path), [&[line(&name("new"))], &expected[..]].concat());
        successor.keep_only(&[name("new"), name("a"), name("b")]).unwrap();
        assert_eq!(lines(&path), [&[line(&name("new"))], &expected[..3]].concat());
        successor.keep_only(&[name("new")]).unwrap();
        assert_eq!(lines(&path), [line(&name("new"))]);
        std::fs::remove_file(&path).unwrap();
    }
}
