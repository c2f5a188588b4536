//! A name server alone: `serve [address] [data directory]`.

use sluice_namesrv::{Config, run};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("name server at {}", listener.local_addr()?);
    let config = Config { data_dir: args.next().map(Into::into), ..Config::default() };
    run(listener, config, async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
