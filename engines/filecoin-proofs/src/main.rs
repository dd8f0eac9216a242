//! An engine of sealfleet over the reference implementation: it reads one request from
//! stdin, does p1, p2, p3 or p4 by filecoin-proofs-api, and ends with one result or one
//! error on stdout. The protocol is in docs/engines.md.

mod files;
mod phases;
mod request;

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Mutex;

use serde_json::{json, Value};

use request::{Fault, Request};

/// Where lines of the protocol go: what stdout was before anybody else could write to it.
pub struct Lines(Mutex<File>);

impl Lines {
    /// Takes stdout away from the rest of the process: whatever a library prints there goes
    /// to stderr from now on, so that it can't be taken for a line of the protocol.
    fn claim() -> io::Result<Lines> {
        // SAFETY: both descriptors are open; the duplicate belongs to nobody else.
        let file = unsafe {
            let own = libc::dup(1);
            if own < 0 || libc::dup2(2, 1) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::fcntl(own, libc::F_SETFD, libc::FD_CLOEXEC);
            File::from_raw_fd(own)
        };
        Ok(Lines(Mutex::new(file)))
    }

    fn say(&self, line: &Value) {
        let mut text = line.to_string();
        text.push('\n');
        let mut out = self.0.lock().unwrap_or_else(|e| e.into_inner());
        // A parent that is gone is noticed on stdin.
        let _ = out.write_all(text.as_bytes());
    }

    /// Says how far the phase is.
    pub fn progress(&self, step: &str, done: u64, total: u64) {
        self.say(&json!({"type": "progress", "step": step, "done": done, "total": total}));
    }

    fn fail(&self, fault: &Fault) {
        self.say(&json!({"type": "error", "code": fault.code, "class": fault.class, "message": fault.message}));
    }
}

/// Ends this process as soon as stdin ends: then the parent is dead, and another host may
/// already do the same work. Lines that come meanwhile are controls of p5, not ours.
fn die_with_parent() {
    let mut sink = [0u8; 4096];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut sink) {
            Ok(n) if n > 0 => continue,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // SAFETY: ends the process without running handlers, which other threads could hold up.
            _ => unsafe { libc::_exit(1) },
        }
    }
}

/// More than any request has: a sector's pieces are some thousand at most.
const MAX_REQUEST: u64 = 8 << 20;

fn read_request() -> Result<Request, Fault> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MAX_REQUEST)
        .read_line(&mut line)
        .map_err(|e| Fault::bad_request(format!("stdin: {e}")))?;
    Request::parse(&line)
}

fn run() -> i32 {
    let lines = match Lines::claim() {
        Ok(lines) => lines,
        Err(e) => {
            eprintln!("stdout: {e}");
            return 1;
        }
    };
    let request = match read_request() {
        Ok(request) => request,
        Err(fault) => {
            lines.fail(&fault);
            return 2;
        }
    };
    request.configure_libraries();
    std::thread::spawn(die_with_parent);

    let verify = std::env::args().nth(1).is_some_and(|word| word == "verify");
    let work = || if verify { phases::verify(&request) } else { phases::run(&request, &lines) };
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
            .unwrap_or_else(|| "no message".into());
        Err(Fault::new("engine_panic", "retryable", format!("the reference panicked: {text}")))
    });
    match result {
        Ok(outputs) => {
            lines.say(&json!({"type": "result", "outputs": outputs}));
            0
        }
        Err(fault) => {
            lines.fail(&fault);
            1
        }
    }
}

fn main() {
    // Threads of the libraries may still be about; the files are synced and nothing waits.
    std::process::exit(run());
}
