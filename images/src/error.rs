//! What can go wrong with images, as values whose text is ready for the user: what failed, on what,
//! why, and what to do. A variant exists where a caller matches on it.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error about an image, an archive or the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or id.
    #[error("no such image: {name}{}", near.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    NoSuchImage {
        /// What was asked for.
        name: String,
        /// A name of the store that looks like it.
        near: Option<String>,
    },
    /// The beginning of an id fits several images.
    #[error("image id {prefix} fits several images ({}); give more digits", ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Short ids that begin so.
        ids: Vec<String>,
    },
    /// Not a name that docker's grammar allows.
    #[error("invalid image name {name:?}: {why}")]
    BadName {
        /// The text as given.
        name: String,
        /// The rule it breaks.
        why: String,
    },
    /// The image can't be removed: containers stand on its layers.
    #[error("conflict: unable to remove image {image}: used by {}; remove that container first", users.join(", "))]
    InUse {
        /// Name or short id.
        image: String,
        /// Whom the caller named.
        users: Vec<String>,
    },
    /// Removal by id of an image that has several names.
    #[error("cannot remove image {id}: it has several names ({}); remove them by name, or force it with -f", names.join(", "))]
    SeveralNames {
        /// Short id.
        id: String,
        /// Its names in docker's familiar form.
        names: Vec<String>,
    },
    /// The archive is damaged, hostile or of a kind that we don't take. The store is as it was.
    #[error("refused {archive}: {}{why}", entry.as_ref().map(|e| format!("{e}: ")).unwrap_or_default())]
    Refused {
        /// The archive as the user named it.
        archive: String,
        /// The entry within it, where there is one.
        entry: Option<String>,
        /// The reason.
        why: String,
    },
    /// The archive holds no image; perhaps it's a root file system.
    #[error(
        "refused {archive}: it has no manifest.json, index.json or repositories: not an image; if it is a root file system, use import"
    )]
    NotAnImage {
        /// The archive as the user named it.
        archive: String,
    },
    /// No space, or the quota is used up. The store is as it was.
    #[error("no space left for {what} below {}; free some space, or use another root with MINIDOCK_ROOT", path.display())]
    NoSpace {
        /// What was being written.
        what: String,
        /// The store's folder.
        path: PathBuf,
    },
    /// A change for `import -c` that we don't understand.
    #[error("invalid change {change:?}: {why}")]
    BadChange {
        /// The text as given.
        change: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the store doesn't hold what it should.
    #[error("the image store is damaged: {}: {why}; remove the image and load it again", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store was written by a newer minidock.
    #[error("{} was written by a newer minidock (store version {found}, this one knows {known})", path.display())]
    Version {
        /// The version file.
        path: PathBuf,
        /// Number found there.
        found: u64,
        /// Newest number that this program knows.
        known: u64,
    },
    /// The operating system refused something.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Verb, such as "open".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Gives `map_err` the object's name: `open(path).map_err(at("open", path))`. ENOSPC and EDQUOT become
/// [`Error::NoSpace`], so that every writer reports them alike.
pub(crate) fn at<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |source| {
        let source: io::Error = source.into();
        if no_space(&source) {
            let path = path.to_path_buf();
            return Error::NoSpace { what: "the image".into(), path };
        }
        Error::Io { what, path: path.to_path_buf(), source }
    }
}

/// ENOSPC or EDQUOT?
pub(crate) fn no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The payload of an `io::Error` that means "the input is bad", raised inside a `Read`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub String);

/// An `io::Error` that says that the input is bad.
pub(crate) fn refusal(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Refusal(why.into()))
}

/// Why unpacking or reading one stream stopped; becomes an [`Error`] once the archive's name is known.
#[derive(Debug)]
pub enum Failure {
    /// The input is bad.
    Refused {
        /// Name of the entry, where there is one.
        entry: Option<String>,
        /// The reason.
        why: String,
    },
    /// ENOSPC or EDQUOT.
    NoSpace,
    /// Another error of the operating system.
    Io {
        /// Name of the entry, where there is one.
        entry: Option<String>,
        /// The system's error.
        source: io::Error,
    },
}

impl Failure {
    /// From an error while reading: what the system says is an I/O error, everything else comes from a
    /// parser or a decoder and means that the data is bad.
    pub(crate) fn reading(error: io::Error, entry: Option<String>) -> Failure {
        match error.raw_os_error() {
            Some(_) => Failure::Io { entry, source: error },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Failure::Refused { entry, why: "the data ends too early (truncated?)".into() }
            }
            None => Failure::Refused { entry, why: error.to_string() },
        }
    }

    /// From an error while writing into the layer.
    pub(crate) fn writing(error: io::Error, entry: Option<String>) -> Failure {
        if no_space(&error) {
            return Failure::NoSpace;
        }
        use rustix::io::Errno;
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let why = match errno {
            Some(Errno::NAMETOOLONG) => "a part of the name is longer than this file system allows",
            Some(Errno::LOOP) => "its folder leads through too many symbolic links",
            Some(Errno::NOTDIR) => "a part of its folder's name is a file, not a folder",
            Some(Errno::FBIG) => "the file is larger than this file system allows",
            Some(Errno::MLINK) => "too many hard links to one file",
            _ => {
                return Failure::Io { entry, source: error };
            }
        };
        Failure::Refused { entry, why: why.into() }
    }

    /// Adds the part of the archive that the entry is in.
    pub(crate) fn within(self, part: &str) -> Failure {
        let join = |entry: Option<String>| Some(entry.map_or(part.to_owned(), |entry| format!("{part}: {entry}")));
        match self {
            Failure::Refused { entry, why } => Failure::Refused { entry: join(entry), why },
            Failure::NoSpace => Failure::NoSpace,
            Failure::Io { entry, source } => Failure::Io { entry: join(entry), source },
        }
    }

    /// The user's error: adds the archive's name and, for lack of space, the store's folder.
    pub(crate) fn of(self, archive: &str, store: &Path) -> Error {
        match self {
            Failure::Refused { entry, why } => Error::Refused { archive: archive.into(), entry, why },
            Failure::NoSpace => Error::NoSpace { what: archive.into(), path: store.into() },
            Failure::Io { entry, source } => {
                let mut path = archive.to_owned();
                if let Some(entry) = entry {
                    path.push_str(": ");
                    path.push_str(&entry);
                }
                Error::Io { what: "unpack", path: path.into(), source }
            }
        }
    }
}
