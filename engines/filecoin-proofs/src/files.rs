//! Files that are whole or not there. The reference writes its files in place and encodes
//! the replica over its data; so it gets a directory of its own beside the real ones, and
//! what it leaves there is synced and renamed when the phase is over.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::request::Request;

/// A directory for the work of one attempt, removed when it is dropped.
pub struct Scratch {
    pub dir: PathBuf,
}

impl Scratch {
    /// Makes the scratch directory that the request names; sealfleet removes it if this
    /// process is killed. Without a name, as when a person feeds the request, it makes one
    /// up, in the sector's cache.
    pub fn new(r: &Request) -> Result<Scratch> {
        let dir = if r.scratch.as_os_str().is_empty() {
            r.paths.cache.join(format!(".engine-{}", std::process::id()))
        } else {
            r.scratch.clone()
        };
        fs::create_dir_all(&r.paths.cache).with_context(|| r.paths.cache.display().to_string())?;
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Scratch { dir })
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(name.as_ref())
    }

    /// A directory in the scratch directory.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        fs::create_dir(&dir)?;
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {e}", self.dir.display());
        }
    }
}

/// Syncs a finished file and gives it its name.
pub fn place(from: &Path, to: &Path) -> Result<()> {
    File::open(from).with_context(|| from.display().to_string())?.sync_all()?;
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::rename(from, to).with_context(|| format!("rename {} to {}", from.display(), to.display()))?;
    if let Some(dir) = to.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Writes a file whole.
pub fn write(scratch: &Scratch, to: &Path, data: &[u8]) -> Result<()> {
    let temporary = scratch.path(to.file_name().context("a path without a name")?);
    fs::write(&temporary, data).with_context(|| temporary.display().to_string())?;
    place(&temporary, to)
}

/// Replaces every occurrence of `from`.
pub fn replace(data: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while !rest.is_empty() {
        if rest.starts_with(from) {
            out.extend_from_slice(to);
            rest = &rest[from.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

/// A string as bincode writes it: length (u64, little-endian) and bytes.
pub fn bincode_string(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}
