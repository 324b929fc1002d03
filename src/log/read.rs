//! Reading a json-file log while its writer goes on and rotates it.
//!
//! Files are told apart by inode number, never by name: a rotation renames them between any two system calls. A file that
//! is open here keeps its number, so no other file can be taken for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Record;
use super::json_file::older;

const CHUNK: usize = 64 << 10;
/// A record is 16 KiB of text at most, and six bytes for each at worst.
const LONGEST: usize = 1 << 20;

/// A place in a log.
pub struct Reader {
    path: PathBuf,
    /// The file that is read, and the newer ones.
    files: VecDeque<File>,
    /// Where in the first file the next chunk begins.
    offset: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next record begins.
    start: usize,
    /// Lines that weren't records.
    pub damaged: u64,
}

impl Reader {
    /// At the beginning of the oldest file.
    ///
    /// # Errors
    /// The log can't be read; `NotFound` when there's none.
    pub fn open(path: &Path) -> io::Result<Reader> {
        let files = generations(path)?;
        if files.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Reader { path: path.to_path_buf(), files, offset: 0, buffer: vec![], start: 0, damaged: 0 })
    }

    /// Goes to where only so many records are left.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn tail(&mut self, records: usize) -> io::Result<()> {
        let mut ends = 0; // of records
        let mut chunk = vec![0; CHUNK];
        for index in (0..self.files.len()).rev() {
            let mut end = self.files[index].metadata()?.len();
            while end > 0 {
                let start = end.saturating_sub(CHUNK as u64);
                let part = &mut chunk[..(end - start) as usize];
                self.files[index].read_exact_at(part, start)?;
                for at in (0..part.len()).rev().filter(|at| part[*at] == b'\n') {
                    ends += 1;
                    if ends > records {
                        self.files.drain(..index);
                        self.offset = start + at as u64 + 1;
                        return Ok(());
                    }
                }
                end = start;
            }
        }
        Ok(())
    }

    /// The next record, if it's there already.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if let Some(length) = self.buffer[self.start..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.start..self.start + length];
                let record = serde_json::from_slice(line);
                self.start += length + 1;
                match record {
                    Ok(record) => return Ok(Some(record)),
                    Err(_) => self.damaged += 1,
                }
            } else if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false when there's nothing yet.
    fn fill(&mut self) -> io::Result<bool> {
        // Only whole lines have been used: the rest is read again, because a writer takes half a record back when the disk
        // is full.
        self.offset += self.start as u64;
        (self.start, self.buffer) = (0, std::mem::take(&mut self.buffer));
        self.buffer.clear();
        self.look()?;
        let Some(file) = self.files.front() else { return Ok(false) };
        let mut size = CHUNK;
        loop {
            self.buffer.resize(size, 0);
            let count = read_at(file, &mut self.buffer, self.offset)?;
            self.buffer.truncate(count);
            if self.buffer.contains(&b'\n') {
                return Ok(true);
            }
            if count < size {
                break;
            }
            if size >= LONGEST {
                // No newline in sight: damage, not a record.
                self.damaged += 1;
                self.offset += count as u64;
                self.buffer.clear();
                return Ok(true);
            }
            size *= 4;
        }
        self.buffer.clear();
        if self.files.len() > 1 {
            self.files.pop_front();
            self.offset = 0;
            return Ok(true);
        }
        if self.files[0].metadata()?.len() < self.offset {
            self.offset = 0; // emptied by another program
            return Ok(true);
        }
        Ok(false)
    }

    /// Opens the files that have come since.
    fn look(&mut self) -> io::Result<()> {
        let Some(newest) = self.files.back() else { return Ok(()) };
        let newest = newest.metadata()?.ino();
        match std::fs::metadata(&self.path) {
            Ok(now) if now.ino() != newest => {}
            _ => return Ok(()), // the same; or removed, or between two renames
        }
        let all = generations(&self.path)?;
        let inodes = all.iter().map(|file| file.metadata().map(|data| data.ino())).collect::<io::Result<Vec<_>>>()?;
        // Rotated away altogether: then all of them are newer.
        let known = inodes.iter().position(|inode| *inode == newest).map_or(0, |at| at + 1);
        self.files.extend(all.into_iter().skip(known));
        Ok(())
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// All files, the oldest first. Opened from the newest on, in the direction of the writer's renames: a file may be met
/// twice, none is missed but one that goes for good meanwhile.
fn generations(path: &Path) -> io::Result<VecDeque<File>> {
    let (mut files, mut inodes) = (VecDeque::new(), Vec::new());
    for age in 0.. {
        let file = match File::open(older(path, age)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && age == 0 => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        if !inodes.contains(&inode) {
            inodes.push(inode);
            files.push_front(file);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Writer};
    use super::*;
    use crate::request::LogDriver;
    use crate::request::log_options::LogOptions;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("minidock-read-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn writer(path: &Path, bytes: u64, files: u32) -> Writer {
        let options = LogOptions { max_bytes: Some(bytes), max_files: Some(files), ..LogOptions::default() };
        let labels = Default::default();
        let source = Source { id: "c", name: "n", image: "i", labels: &labels, env: &[] };
        Writer::open(LogDriver::JsonFile, &options, path, &source).unwrap().unwrap()
    }

    fn rest(reader: &mut Reader) -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            numbers.push(record.log.trim().parse().unwrap());
        }
        numbers
    }

    #[test]
    fn a_reader_follows_through_rotations_without_missing_a_line() {
        let folder = scratch("follow");
        let path = folder.join("container.log");
        for files in [1, 2, 3] {
            let mut writer = writer(&path, 2000, files);
            writer.write(0, b"0\n");
            let mut reader = Reader::open(&path).unwrap();
            let mut seen = Vec::new();
            for number in 1..500 {
                writer.write(0, format!("{number}\n").as_bytes());
                if number % 7 == 0 {
                    seen.extend(rest(&mut reader));
                }
            }
            seen.extend(rest(&mut reader));
            assert_eq!(seen, (0..500).collect::<Vec<_>>(), "{files} files");
            assert_eq!(reader.files.len(), 1, "old files are let go");
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_tail_is_found_over_several_files() {
        let folder = scratch("tail");
        let path = folder.join("container.log");
        let mut writer = writer(&path, 3000, 3);
        (0..200).for_each(|number| writer.write(0, format!("{number}\n").as_bytes()));
        let all = rest(&mut Reader::open(&path).unwrap());
        assert!(all.len() > 60 && all.len() < 200 && all.last() == Some(&199));
        for wanted in [0, 1, 2, 30, all.len() - 1, all.len(), all.len() + 1, 100_000] {
            let mut reader = Reader::open(&path).unwrap();
            reader.tail(wanted).unwrap();
            assert_eq!(rest(&mut reader), all[all.len().saturating_sub(wanted)..], "{wanted}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn damage_is_skipped_and_half_a_record_waited_for() {
        let folder = scratch("damage");
        let path = folder.join("container.log");
        let line = |number: u32| format!("{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"t\"}}\n");
        let zeros = "\0".repeat(3 << 20); // what a crash of the machine may leave
        std::fs::write(&path, format!("{}nonsense\n{zeros}\n{}{}", line(1), line(2), &line(3)[..9])).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(rest(&mut reader), [1, 2]);
        assert!(reader.damaged >= 2);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{}{}", &text[..text.len() - 9], line(4))).unwrap();
        assert_eq!(rest(&mut reader), [4], "the half was taken back");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
