//! Generates the Rust code from the `.proto` files, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 7] = [
        "dayfly/v1/types.proto",
        "dayfly/v1/identity.proto",
        "dayfly/v1/access.proto",
        "dayfly/v1/approval.proto",
        "dayfly/v1/operator.proto",
        "dayfly/v1/gateway.proto",
        "dayfly/v1/audit.proto",
    ];
    println!("cargo:rerun-if-changed=dayfly");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("dayfly.v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
