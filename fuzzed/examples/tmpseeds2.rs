//! tmp
fn main() { let t=std::time::Instant::now(); for _ in 0..200 { flowkit_fuzzed::store::run(&[1]); } println!("{:?}", t.elapsed()/200);
 let t=std::time::Instant::now(); for _ in 0..200 { flowkit_fuzzed::store::run(&[3]); } println!("{:?}", t.elapsed()/200); }
