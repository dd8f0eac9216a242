//! The phases, by the reference.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use filecoin_proofs_api::{seal, PieceInfo, RegisteredSealProof, SectorId, UnpaddedBytesAmount};
use serde::Deserialize;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use crate::files::{self, Scratch};
use crate::request::{bytes32, Fault, Request};
use crate::Lines;

/// What a phase hands to the next ones.
type Outputs = BTreeMap<&'static str, String>;

pub fn run(r: &Request, lines: &Lines) -> Result<Outputs, Fault> {
    let phase = match r.phase.as_str() {
        "p1" => p1,
        "p2" => p2,
        "p3" => p3,
        "p4" => p4,
        other => return Err(Fault::unsupported(format!("this engine does p1 to p4, not {other}"))),
    };
    let proof = r.proof()?;
    lines.progress(&r.phase, 0, 1);
    let outputs = phase(r, proof, lines)?;
    lines.progress(&r.phase, 1, 1);
    Ok(outputs)
}

fn p1(r: &Request, proof: RegisteredSealProof, lines: &Lines) -> Result<Outputs, Fault> {
    let (prover, ticket) = (r.prover()?, r.input32("ticket")?);
    let scratch = Scratch::new(r)?;
    let cache = scratch.subdir("cache")?;
    let (unsealed, sealed) = (scratch.path("unsealed"), scratch.path("sealed"));

    let infos = stage(r, proof, &unsealed)?;
    lines.progress("pieces", 1, 1);
    File::create(&sealed)?;
    let out = seal::seal_pre_commit_phase1(
        proof, &cache, &unsealed, &sealed, prover, SectorId::from(r.number), ticket, &filled(proof, &infos)?)?;

    // It names the directory that it was made in; the sector's is another.
    let text = serde_json::to_vec(&out).context("the output of p1")?;
    let text = files::replace(&text, &json_string(&cache)?, &json_string(&r.paths.cache)?);
    for entry in fs::read_dir(&cache)? {
        let entry = entry?;
        files::place(&entry.path(), &r.paths.cache.join(entry.file_name()))?;
    }
    files::place(&unsealed, &r.paths.unsealed)?;
    files::place(&sealed, &r.paths.sealed)?;
    files::write(&scratch, &r.paths.p1_json, &text)?;

    let list: Vec<Value> =
        infos.iter().map(|p| json!({"unpadded_size": p.size.0, "comm_p": hex::encode(p.commitment)})).collect();
    let mut id = Sha256::new();
    id.update(prover);
    id.update(r.number.to_be_bytes());
    id.update(ticket);
    id.update(out.comm_d);
    id.update(proof.as_v1_config().porep_id);
    let mut id: [u8; 32] = id.finalize().into();
    id[31] &= 0x3f;
    Ok(BTreeMap::from([
        ("comm_d", hex::encode(out.comm_d)),
        ("replica_id", hex::encode(id)),
        ("pieces", Value::from(list).to_string()),
    ]))
}

/// Writes the unsealed file and commits to the pieces.
fn stage(r: &Request, proof: RegisteredSealProof, path: &Path) -> Result<Vec<PieceInfo>, Fault> {
    let mut staged = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let size = u64::from(proof.sector_size());
    let mut infos: Vec<PieceInfo> = Vec::new();
    let pieces = r.pieces.as_deref().unwrap_or_default();
    if pieces.is_empty() {
        let unpadded = size / 128 * 127;
        infos.push(PieceInfo { commitment: zero_commitment(size), size: UnpaddedBytesAmount(unpadded) });
    }
    let mut sizes: Vec<UnpaddedBytesAmount> = Vec::new();
    for piece in pieces {
        let size = UnpaddedBytesAmount(piece.unpadded_size);
        let info = if piece.path.as_os_str().is_empty() {
            seal::add_piece(proof, io::repeat(0).take(size.0), &mut staged, size, &sizes)?.0
        } else {
            let source = File::open(&piece.path).with_context(|| piece.path.display().to_string())?;
            let found = source.metadata()?.len();
            if found != size.0 {
                return Err(Fault::new(
                    "bad_piece", "permanent", format!("{} has {found} bytes, the piece {}", piece.path.display(), size.0)));
            }
            seal::add_piece(proof, source, &mut staged, size, &sizes)?.0
        };
        infos.push(info);
        sizes.push(size);
    }
    if staged.metadata()?.len() > size {
        return Err(Fault::new("bad_piece", "permanent", "the pieces do not fit in the sector".into()));
    }
    staged.set_len(size)?;
    Ok(infos)
}

/// The pieces with zeros behind the last one, up to the sector's end: the reference asks for
/// a list that fills it.
fn filled(proof: RegisteredSealProof, infos: &[PieceInfo]) -> Result<Vec<PieceInfo>> {
    let (mut all, mut end, sector) = (infos.to_vec(), 0u64, u64::from(proof.sector_size()));
    for info in infos {
        let padded = info.size.0 / 127 * 128;
        ensure!(padded.is_power_of_two() && info.size.0 % 127 == 0, "a piece of {} bytes is not 127·2^k", info.size.0);
        end = end.next_multiple_of(padded) + padded;
    }
    ensure!(end <= sector, "the pieces do not fit in the sector");
    while end < sector {
        let padded = 1 << end.trailing_zeros();
        all.push(PieceInfo { commitment: zero_commitment(padded), size: UnpaddedBytesAmount(padded / 128 * 127) });
        end += padded;
    }
    Ok(all)
}

/// The commitment of that many zeros: a tree of equal nodes needs one hash for each row.
fn zero_commitment(padded: u64) -> [u8; 32] {
    let mut node = [0u8; 32];
    for _ in 0..(padded / 32).trailing_zeros() {
        let mut h = Sha256::new();
        h.update(node);
        h.update(node);
        node = h.finalize().into();
        node[31] &= 0x3f;
    }
    node
}

fn p2(r: &Request, proof: RegisteredSealProof, lines: &Lines) -> Result<Outputs, Fault> {
    let raw = fs::read(&r.paths.p1_json).with_context(|| r.paths.p1_json.display().to_string())?;
    let out1: seal::SealPreCommitPhase1Output = serde_json::from_slice(&raw)
        .map_err(|e| Fault::new("p1_malformed", "permanent", format!("{}: {e}: do p1 again", r.paths.p1_json.display())))?;
    if out1.registered_proof != proof {
        return Err(Fault::new("other_sector", "permanent", format!("p1 was done for {:?}, not {proof:?}", out1.registered_proof)));
    }

    // The reference looks for its inputs in the directory that it writes to.
    let scratch = Scratch::new(r)?;
    let cache = scratch.subdir("cache")?;
    for entry in fs::read_dir(&r.paths.cache)? {
        let (path, name) = { let e = entry?; (e.path(), e.file_name()) };
        let text = name.to_string_lossy();
        if text.starts_with("sc-02-data-layer-") || text == "sc-02-data-tree-d.dat" {
            symlink(fs::canonicalize(path)?, cache.join(name))?;
        }
    }
    // It encodes the replica over the data: over a copy of tree D's leaves, so that p2 can be
    // done again when the sealed file is sealed already.
    let sealed = scratch.path("sealed");
    let size = u64::from(proof.sector_size());
    let mut data = File::open(cache.join("sc-02-data-tree-d.dat")).context("tree D: do p1 again")?.take(size);
    let mut copy = File::create(&sealed)?;
    let copied = io::copy(&mut data, &mut copy)?;
    if copied != size {
        return Err(Fault::new("phase_failed", "retryable", format!("tree D has {copied} bytes of data, not {size}: do p1 again")));
    }
    drop(copy);
    lines.progress("copy of the data", size, size);

    let out = seal::seal_pre_commit_phase2(out1, &cache, &sealed)?;

    let aux = fs::read(cache.join("p_aux")).context("p_aux")?;
    if aux.len() != 64 {
        return Err(Fault::new("phase_failed", "retryable", format!("p_aux has {} bytes, want 64", aux.len())));
    }
    let (from, to) = (path_text(&cache)?, path_text(&r.paths.cache)?);
    let t_aux = fs::read(cache.join("t_aux")).context("t_aux")?;
    fs::write(cache.join("t_aux"), files::replace(&t_aux, &files::bincode_string(from), &files::bincode_string(to)))?;
    files::place(&sealed, &r.paths.sealed)?;
    for entry in fs::read_dir(&cache)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files::place(&entry.path(), &r.paths.cache.join(entry.file_name()))?;
        }
    }
    Ok(BTreeMap::from([
        ("comm_r", hex::encode(out.comm_r)),
        ("comm_c", hex::encode(&aux[..32])),
        ("comm_r_last", hex::encode(&aux[32..])),
    ]))
}

#[derive(Deserialize)]
struct CommittedPiece {
    unpadded_size: u64,
    comm_p: String,
}

fn p3(r: &Request, proof: RegisteredSealProof, _: &Lines) -> Result<Outputs, Fault> {
    let out2 = seal::SealPreCommitPhase2Output {
        registered_proof: proof, comm_r: r.input32("comm_r")?, comm_d: r.input32("comm_d")?,
    };
    let list: Vec<CommittedPiece> =
        serde_json::from_str(r.input("pieces")?).map_err(|e| Fault::bad_request(format!("pieces: {e}")))?;
    let infos = list
        .iter()
        .map(|p| Ok(PieceInfo { commitment: bytes32("comm_p", &p.comm_p)?, size: UnpaddedBytesAmount(p.unpadded_size) }))
        .collect::<Result<Vec<_>, Fault>>()?;
    let out = seal::seal_commit_phase1(
        &r.paths.cache, &r.paths.sealed, r.prover()?, SectorId::from(r.number), r.input32("ticket")?, r.input32("seed")?,
        out2, &filled(proof, &infos)?)?;
    let text = serde_json::to_vec(&out).context("the output of p3")?;
    let scratch = Scratch::new(r)?;
    files::write(&scratch, &r.paths.c1_json, &text)?;
    Ok(BTreeMap::from([("c1_sha256", hex::encode(Sha256::digest(&text))), ("c1_bytes", text.len().to_string())]))
}

fn p4(r: &Request, proof: RegisteredSealProof, _: &Lines) -> Result<Outputs, Fault> {
    if r.proof.as_ref().is_some_and(|p| p.none) {
        return Err(Fault::unsupported("this engine makes SNARKs; without one there is nothing to do".into()));
    }
    let raw = fs::read(&r.paths.c1_json).with_context(|| r.paths.c1_json.display().to_string())?;
    let c1: seal::SealCommitPhase1Output = serde_json::from_slice(&raw)
        .map_err(|e| Fault::new("c1_malformed", "permanent", format!("{}: {e}: do p3 again", r.paths.c1_json.display())))?;
    drop(raw);
    if c1.registered_proof != proof {
        return Err(Fault::new("other_sector", "permanent", format!("p3 was done for {:?}, not {proof:?}", c1.registered_proof)));
    }
    let out = seal::seal_commit_phase2(c1, r.prover()?, SectorId::from(r.number))?;
    Ok(BTreeMap::from([
        ("proof", hex::encode(&out.proof)),
        ("snark", "groth16".into()),
        ("proof_bytes", out.proof.len().to_string()),
        ("proof_sha256", hex::encode(Sha256::digest(&out.proof))),
    ]))
}

/// Not a phase: tells whether the reference accepts the proof in the request's inputs, as
/// the chain would. `sealfleet-engine-filecoin-proofs verify` with the request of p4 on
/// stdin, for tests and doubting operators.
pub fn verify(r: &Request) -> Result<Outputs, Fault> {
    let proof = hex::decode(r.input("proof")?).map_err(|e| Fault::bad_request(format!("proof: {e}")))?;
    let accepted = seal::verify_seal(
        r.proof()?, r.input32("comm_r")?, r.input32("comm_d")?, r.prover()?, SectorId::from(r.number), r.input32("ticket")?,
        r.input32("seed")?, &proof)?;
    if !accepted {
        return Err(Fault::new("proof_refused", "permanent", "the reference refuses the proof".into()));
    }
    Ok(BTreeMap::from([("accepted", "true".into())]))
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8: rename it", path.display()))
}

fn json_string(path: &Path) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(path_text(path)?)?)
}
