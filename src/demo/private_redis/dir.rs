//! The data directory of a private Redis: whose it is, and where its socket is.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::child::{STOP_DEADLINE, ask};
use super::error::{StartError, at};
use crate::config::Secret;

/// The kernel takes 108 bytes on Linux and 104 on macOS, the closing zero included.
pub(super) const LONGEST_SOCKET: usize = 100;
const LOCK: &str = "unread.lock";
pub(super) const SOCKET: &str = "redis.sock";
/// Where a socket that did not fit into the data directory is noted, so that an orphan behind it can be found.
const SOCKET_NOTE: &str = "redis.sock.path";
const LOG: &str = "redis.log";
/// Between two looks at an orphan.
const TICK: Duration = Duration::from_millis(50);

const PATH_SAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.');

/// A data directory that is ours as long as this lives: it holds the lock.
pub(super) struct DataDir {
    path: PathBuf,
    socket: PathBuf,
    /// The directory made for the socket, if it is not the data directory.
    socket_dir: Option<PathBuf>,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, locks it, and ends a server that was left behind in it.
    pub(super) fn prepare(path: &Path) -> Result<Self, StartError> {
        let path = private_dir(path)?;
        let lock = lock(&path)?;
        let inside = path.join(SOCKET);
        let note = path.join(SOCKET_NOTE);
        end_orphan(&inside)?;
        if let Ok(elsewhere) = std::fs::read(&note) {
            end_orphan(Path::new(OsStr::from_bytes(&elsewhere)))?;
        }
        let (socket, socket_dir) = if inside.as_os_str().len() <= LONGEST_SOCKET {
            (inside, None)
        } else {
            let made = fresh_dir("unread").map_err(at(&std::env::temp_dir()))?;
            let socket = made.join(SOCKET);
            std::fs::write(&note, socket.as_os_str().as_bytes()).map_err(at(&note))?;
            (socket, Some(made))
        };
        Ok(Self {
            path,
            socket,
            socket_dir,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The address of the server.
    pub(super) fn url(&self) -> Secret {
        url(&self.socket)
    }

    /// The log of the server.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The last thing that the server said.
    pub(super) fn last_words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&std::fs::read(self.log()).ok()?).into_owned();
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    }

    /// Removes what only a running server needs. What can't be removed does no harm.
    pub(super) fn clear(&self) {
        let _ = std::fs::remove_file(&self.socket);
        if let Some(dir) = &self.socket_dir {
            let _ = std::fs::remove_dir(dir);
            let _ = std::fs::remove_file(self.path.join(SOCKET_NOTE));
        }
    }
}

fn url(socket: &Path) -> Secret {
    let path = percent_encode(socket.as_os_str().as_bytes(), PATH_SAFE);
    Secret(format!("redis+unix://{path}"))
}

/// The address of the private server that a pod runs on `data_dir` now, if one does.
pub(crate) fn running(data_dir: &Path) -> Option<Secret> {
    let dir = data_dir.canonicalize().ok()?;
    let mut places = vec![dir.join(SOCKET)];
    if let Ok(elsewhere) = std::fs::read(dir.join(SOCKET_NOTE)) {
        places.push(PathBuf::from(OsStr::from_bytes(&elsewhere)));
    }
    let socket = places
        .into_iter()
        .find(|place| UnixStream::connect(place).is_ok())?;
    Some(url(&socket))
}

/// Makes a directory that only we can enter, with a name that nobody can guess beforehand.
pub(crate) fn fresh_dir(prefix: &str) -> io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("{prefix}-{:016x}", rand::random::<u64>()));
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// The data directory, absolute, made if it is not there.
fn private_dir(path: &Path) -> Result<PathBuf, StartError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(at(path))?;
    let dir = path.canonicalize().map_err(at(path))?;
    // Closed to others where it is ours. A directory with other things in it (say /tmp) is not for us to close: there
    // the socket's own mode still keeps others out.
    let ours =
        dir.join(LOCK).exists() || std::fs::read_dir(&dir).map_err(at(&dir))?.next().is_none();
    let mode = std::fs::metadata(&dir)
        .map_err(at(&dir))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        if ours && mode & 0o1000 == 0 {
            std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(at(&dir))?;
        } else {
            tracing::warn!(data_dir = %dir.display(), "others can look into the data directory");
        }
    }
    Ok(dir)
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::Io { path, error }),
    }
}

/// Stops a server that was left behind by a killed pod (where the kernel does not do it for us). The socket is in a
/// directory that we have locked, so it is one of ours.
fn end_orphan(socket: &Path) -> Result<(), StartError> {
    let is_socket = std::fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut has_warned = false;
    while UnixStream::connect(socket).is_ok() {
        if Instant::now() > deadline {
            return Err(StartError::Orphan(socket.to_owned()));
        }
        if !std::mem::replace(&mut has_warned, true) {
            tracing::warn!("stopping a redis-server that an earlier process left behind");
        }
        // Only snapshots are left out; the append-only file is always written out. No answer is the good answer.
        let _ = ask(socket, "SHUTDOWN NOSAVE");
        thread::sleep(TICK);
    }
    if has_warned {
        // The socket closes before the process ends: let it let go of its files.
        thread::sleep(TICK * 2);
    }
    std::fs::remove_file(socket).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(at(socket)(error)),
    })
}
