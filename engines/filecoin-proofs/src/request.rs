//! The request, and the errors that answer it.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::PathBuf;

use filecoin_proofs_api::RegisteredSealProof;
use serde::Deserialize;

/// An error with its code and what follows from it: transient, retryable or permanent.
pub struct Fault {
    pub code: &'static str,
    pub class: &'static str,
    pub message: String,
}

impl Fault {
    pub fn new(code: &'static str, class: &'static str, message: String) -> Fault {
        Fault { code, class, message }
    }

    pub fn bad_request(message: String) -> Fault {
        Fault::new("bad_request", "permanent", message)
    }

    pub fn unsupported(message: String) -> Fault {
        Fault::new("unsupported", "permanent", message)
    }
}

impl From<anyhow::Error> for Fault {
    fn from(e: anyhow::Error) -> Fault {
        let full = e.chain().any(|cause| {
            cause.downcast_ref::<io::Error>().and_then(|e| e.raw_os_error()).is_some_and(|n| n == libc::ENOSPC || n == libc::EDQUOT)
        });
        if full {
            return Fault::new("no_space", "transient", format!("{e:#}"));
        }
        Fault::new("phase_failed", "retryable", format!("{e:#}"))
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Fault {
        anyhow::Error::from(e).into()
    }
}

/// What to do. Fields that this engine has no use for are skipped.
#[derive(Deserialize)]
pub struct Request {
    pub v: u64,
    pub phase: String,
    pub proof_type: i64,
    #[serde(default)]
    pub shape: String,
    #[serde(default)]
    porep_id: String,
    prover_id: String,
    pub number: u64,
    #[serde(default)]
    pub pieces: Option<Vec<Piece>>,
    #[serde(default)]
    pub inputs: Option<BTreeMap<String, String>>,
    pub paths: Paths,
    #[serde(default)]
    threads: usize,
    #[serde(default)]
    pub proof: Option<Proof>,
    #[serde(default)]
    pub scratch: PathBuf,
}

/// How p4 proves.
#[derive(Deserialize)]
pub struct Proof {
    #[serde(default)]
    parameters: String,
    #[serde(default)]
    pub none: bool,
}

/// A piece of p1; no path stands for zeros.
#[derive(Deserialize)]
pub struct Piece {
    #[serde(default)]
    pub path: PathBuf,
    pub unpadded_size: u64,
}

#[derive(Deserialize)]
pub struct Paths {
    pub unsealed: PathBuf,
    pub sealed: PathBuf,
    pub cache: PathBuf,
    pub p1_json: PathBuf,
    pub c1_json: PathBuf,
}

/// The protocol that this engine speaks.
const VERSION: u64 = 1;

impl Request {
    pub fn parse(line: &str) -> Result<Request, Fault> {
        let r: Request = serde_json::from_str(line).map_err(|e| Fault::bad_request(format!("no request on stdin: {e}")))?;
        if r.v != VERSION {
            return Err(Fault::bad_request(format!("request has protocol version {}, this engine speaks {VERSION}", r.v)));
        }
        Ok(r)
    }

    /// Tells the libraries where the parameters are and how many cores to use. They read
    /// their environment once, when they are first used, so this comes before any thread.
    pub fn configure_libraries(&self) {
        if let Some(proof) = self.proof.as_ref().filter(|p| !p.parameters.is_empty()) {
            env::set_var("FIL_PROOFS_PARAMETER_CACHE", &proof.parameters);
        }
        if self.threads > 0 {
            for name in ["RAYON_NUM_THREADS", "EC_GPU_NUM_THREADS"] {
                env::set_var(name, self.threads.to_string());
            }
        }
    }

    pub fn proof(&self) -> Result<RegisteredSealProof, Fault> {
        use RegisteredSealProof::*;
        if !self.shape.is_empty() {
            return Err(Fault::unsupported(format!(
                "filecoin-proofs-api has no sectors of {}: it knows the registered proof types alone",
                self.shape
            )));
        }
        let proof = match self.proof_type {
            0 => StackedDrg2KiBV1,
            1 => StackedDrg8MiBV1,
            2 => StackedDrg512MiBV1,
            3 => StackedDrg32GiBV1,
            4 => StackedDrg64GiBV1,
            5 => StackedDrg2KiBV1_1,
            6 => StackedDrg8MiBV1_1,
            7 => StackedDrg512MiBV1_1,
            8 => StackedDrg32GiBV1_1,
            9 => StackedDrg64GiBV1_1,
            n => return Err(Fault::bad_request(format!("proof type {n} is not 0 to 9"))),
        };
        if !self.porep_id.is_empty() && self.porep_id != hex::encode(proof.as_v1_config().porep_id) {
            return Err(Fault::unsupported(format!(
                "PoRep id {} is not that of the proof type, and filecoin-proofs-api takes no other",
                self.porep_id
            )));
        }
        Ok(proof)
    }

    pub fn prover(&self) -> Result<[u8; 32], Fault> {
        bytes32("prover_id", &self.prover_id)
    }

    pub fn input(&self, name: &str) -> Result<&str, Fault> {
        self.inputs
            .as_ref()
            .and_then(|m| m.get(name))
            .map(String::as_str)
            .ok_or_else(|| Fault::bad_request(format!("{} lacks its input {name}", self.phase)))
    }

    pub fn input32(&self, name: &str) -> Result<[u8; 32], Fault> {
        bytes32(name, self.input(name)?)
    }
}

pub fn bytes32(name: &str, text: &str) -> Result<[u8; 32], Fault> {
    hex::decode(text)
        .ok()
        .and_then(|raw| raw.try_into().ok())
        .ok_or_else(|| Fault::bad_request(format!("{name} {text:?} is not 32 bytes in hex")))
}
