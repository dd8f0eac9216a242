//! The reference's side of every ratio in docs/benchmarks.md: one sector, phase by phase,
//! with the flags and the JSON of `consumer bench`, so that the two can be compared by
//! their answers as well as by their times.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use filecoin_proofs::with_shape;
use filecoin_proofs_api::seal;
use filecoin_proofs_api::{PieceInfo, ProverId, RegisteredSealProof, SectorId, UnpaddedBytesAmount};
use rand::rngs::OsRng;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_core::parameter_cache::CacheableParameters;
use storage_proofs_porep::stacked::{StackedCompound, StackedDrg};

#[derive(Parser)]
#[command(about = "Seal one sector with the reference implementation and say how long each phase took")]
struct Args {
    /// Filecoin's registered seal proof, 0 to 9
    #[arg(long)]
    proof_type: u64,
    #[arg(long, default_value_t = 1000)]
    miner: u64,
    #[arg(long, default_value_t = 7)]
    sector: u64,
    /// 32 bytes in hex
    #[arg(long, default_value = "0101010101010101010101010101010101010101010101010101010101010101")]
    ticket: String,
    /// 32 bytes in hex
    #[arg(long, default_value = "0202020202020202020202020202020202020202020202020202020202020202")]
    seed: String,
    /// Unpadded piece files in order; none: zeros
    #[arg(long)]
    piece: Vec<PathBuf>,
    /// Where unsealed, sealed, cache/, p1.json, p2.json and c1.json go
    #[arg(long)]
    dir: PathBuf,
    /// Which phases: p1,p2,p3,p4, and `params` to make the parameters of p4
    #[arg(long, value_delimiter = ',', default_value = "p1,p2,p3")]
    phases: Vec<String>,
}

fn bytes32(text: &str, name: &str) -> Result<[u8; 32]> {
    let raw = hex::decode(text).with_context(|| format!("--{name} is not hex"))?;
    raw.try_into().map_err(|_| anyhow::anyhow!("--{name} is not 32 bytes"))
}

fn proof_type(n: u64) -> Result<RegisteredSealProof> {
    use RegisteredSealProof::*;
    Ok(match n {
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
        _ => bail!("proof type {n} is not 0 to 9"),
    })
}

fn prover_id(miner: u64) -> ProverId {
    let (mut id, mut rest, mut i) = ([0u8; 32], miner, 0);
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        id[i] = if rest > 0 { low | 0x80 } else { low };
        if rest == 0 {
            return id;
        }
        i += 1;
    }
}

fn add_pieces(args: &Args, proof: RegisteredSealProof) -> Result<Vec<PieceInfo>> {
    let mut staged = OpenOptions::new()
        .read(true).write(true).create(true).truncate(true)
        .open(args.dir.join("unsealed"))?;
    let mut infos: Vec<PieceInfo> = Vec::new();
    let mut sizes: Vec<UnpaddedBytesAmount> = Vec::new();
    if args.piece.is_empty() {
        let size = UnpaddedBytesAmount::from(proof.sector_size());
        let zeros = std::io::Read::take(std::io::repeat(0), size.0);
        infos.push(seal::add_piece(proof, zeros, &mut staged, size, &sizes)?.0);
    }
    for path in &args.piece {
        let source = File::open(path).with_context(|| path.display().to_string())?;
        let size = UnpaddedBytesAmount(source.metadata()?.len());
        infos.push(seal::add_piece(proof, source, &mut staged, size, &sizes)?.0);
        sizes.push(size);
    }
    staged.set_len(u64::from(proof.sector_size()))?;
    Ok(infos)
}

fn make_params<Tree: 'static + MerkleTreeTrait>(proof: RegisteredSealProof) -> Result<()> {
    type Hasher = filecoin_proofs::constants::DefaultPieceHasher;
    let public = filecoin_proofs::parameters::public_params::<Tree>(&proof.as_v1_config())?;
    let circuit = <StackedCompound<Tree, Hasher> as CompoundProof<StackedDrg<'_, Tree, Hasher>, _>>::blank_circuit(&public);
    StackedCompound::<Tree, Hasher>::get_groth_params(Some(&mut OsRng), circuit.clone(), &public)?;
    StackedCompound::<Tree, Hasher>::get_verifying_key(Some(&mut OsRng), circuit, &public)?;
    Ok(())
}

fn file_facts(dir: &Path) -> Result<BTreeMap<String, Value>> {
    let mut paths = vec![dir.join("unsealed"), dir.join("sealed")];
    for entry in fs::read_dir(dir.join("cache"))? {
        paths.push(entry?.path());
    }
    let mut facts = BTreeMap::new();
    for path in paths.iter().filter(|p| p.is_file()) {
        let (mut hash, mut file) = (Sha256::new(), File::open(path)?);
        let size = std::io::copy(&mut file, &mut hash)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        facts.insert(name, json!({"size": size, "sha256": hex::encode(hash.finalize())}));
    }
    Ok(facts)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let proof = proof_type(args.proof_type)?;
    let (ticket, seed) = (bytes32(&args.ticket, "ticket")?, bytes32(&args.seed, "seed")?);
    let (prover, sector) = (prover_id(args.miner), SectorId::from(args.sector));
    let (cache, sealed) = (args.dir.join("cache"), args.dir.join("sealed"));
    fs::create_dir_all(&cache)?;
    let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
    let mut answer = json!({});

    if args.phases.iter().any(|p| p == "p1") {
        let infos = add_pieces(&args, proof)?;
        File::create(&sealed)?;
        let start = Instant::now();
        let out = seal::seal_pre_commit_phase1(
            proof, &cache, args.dir.join("unsealed"), &sealed, prover, sector, ticket, &infos)?;
        seconds.insert("p1", start.elapsed().as_secs_f64());
        fs::write(args.dir.join("p1.json"), serde_json::to_vec(&out)?)?;
        let pieces: Vec<Value> = infos.iter()
            .map(|p| json!({"unpadded_size": p.size.0, "comm_p": hex::encode(p.commitment)})).collect();
        fs::write(args.dir.join("pieces.json"), serde_json::to_vec(&pieces)?)?;
    }
    if args.phases.iter().any(|p| p == "p2") {
        let p1 = serde_json::from_slice(&fs::read(args.dir.join("p1.json")).context("p1.json: run p1 first")?)?;
        let start = Instant::now();
        let out = seal::seal_pre_commit_phase2(p1, &cache, &sealed)?;
        seconds.insert("p2", start.elapsed().as_secs_f64());
        fs::write(args.dir.join("p2.json"), serde_json::to_vec(&out)?)?;
        answer["comm_d"] = json!(hex::encode(out.comm_d));
        answer["comm_r"] = json!(hex::encode(out.comm_r));
    }
    if args.phases.iter().any(|p| p == "p3") {
        let p2 = serde_json::from_slice(&fs::read(args.dir.join("p2.json")).context("p2.json: run p2 first")?)?;
        let pieces: Vec<Value> = serde_json::from_slice(&fs::read(args.dir.join("pieces.json"))?)?;
        let infos = pieces.iter().map(|p| {
            let size = UnpaddedBytesAmount(p["unpadded_size"].as_u64().context("pieces.json")?);
            Ok(PieceInfo { commitment: bytes32(p["comm_p"].as_str().context("pieces.json")?, "comm_p")?, size })
        }).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let out = seal::seal_commit_phase1(&cache, &sealed, prover, sector, ticket, seed, p2, &infos)?;
        seconds.insert("p3", start.elapsed().as_secs_f64());
        let c1 = serde_json::to_vec(&out)?;
        answer["c1_json_sha256"] = json!(hex::encode(Sha256::digest(&c1)));
        fs::write(args.dir.join("c1.json"), c1)?;
    }
    if args.phases.iter().any(|p| p == "params") {
        let start = Instant::now();
        with_shape!(u64::from(proof.sector_size()), make_params, proof)?;
        seconds.insert("params", start.elapsed().as_secs_f64());
    }
    if args.phases.iter().any(|p| p == "p4") {
        let c1: seal::SealCommitPhase1Output =
            serde_json::from_slice(&fs::read(args.dir.join("c1.json")).context("c1.json: run p3 first")?)?;
        let (comm_r, comm_d) = (c1.comm_r, c1.comm_d);
        let start = Instant::now();
        let out = seal::seal_commit_phase2(c1, prover, sector)?;
        seconds.insert("p4", start.elapsed().as_secs_f64());
        ensure!(
            seal::verify_seal(proof, comm_r, comm_d, prover, sector, ticket, seed, &out.proof)?,
            "the reference refuses its own proof"
        );
        answer["proof"] = json!(hex::encode(out.proof));
    }
    if let Some(i) = args.phases.iter().position(|p| p == "verify") {
        // Does the reference accept a proof that somebody else made?
        ensure!(i + 1 == args.phases.len(), "verify comes last");
        let c1: seal::SealCommitPhase1Output = serde_json::from_slice(&fs::read(args.dir.join("c1.json"))?)?;
        let raw = hex::decode(fs::read_to_string(args.dir.join("proof.hex")).context("proof.hex")?.trim())?;
        let ok = seal::verify_seal(proof, c1.comm_r, c1.comm_d, prover, sector, ticket, seed, &raw)?;
        answer["accepted"] = json!(ok);
    }
    if let Ok(raw) = fs::read(args.dir.join("pieces.json")) {
        answer["pieces"] = serde_json::from_slice(&raw)?;
    }
    answer["files"] = json!(file_facts(&args.dir)?);
    answer["seconds"] = json!(seconds);
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
