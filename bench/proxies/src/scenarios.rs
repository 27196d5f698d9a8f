//! What is played with each target: bursts, a limited origin, one that closes idle connections,
//! streams, and steady calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::agents::{Book, Call, Retriable, Road, Seen, frames};
use crate::authority::Authority;
use crate::cpu;
use crate::origin::{DESTINATIONS, EVENTS, IDLE, Manner, Origins, TENANTS};
use crate::proxies::{Bounds, Proxy, Target};

pub const AGENTS: usize = 100;
/// Within this time all agents begin a burst.
pub const START: Duration = Duration::from_millis(20);
/// Between the end of a burst and the next one.
const REST: Duration = Duration::from_millis(500);
/// Streams at once.
pub const STREAMS: usize = 50;
/// Clients of the steady run, and how long they call.
pub const CLIENTS: usize = 32;
pub const STEADY: Duration = Duration::from_secs(3);

/// Everything that a run needs.
pub struct Bench {
    pub authority: Authority,
    pub forebay: std::path::PathBuf,
}

/// What a run gave. What a scenario does not measure is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    pub calls: u64,
    pub errors: u64,
    pub errors_retriable: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub first_p99_ms: f64,
    pub later_p50_ms: f64,
    pub later_p99_ms: f64,
    pub connections: u64,
    pub exchanges: u64,
    pub token_keys: u64,
    pub mixed_connections: u64,
    pub wrong_tenant: u64,
    pub proxy_cpu_us_per_call: f64,
    pub agents_cpu_us_per_call: f64,
    pub memory_mb: f64,
    pub calls_per_second: f64,
    pub samples: Vec<String>,
}

/// One of the scenarios in bursts.
#[derive(Debug, Clone, Copy)]
pub struct Bursts {
    pub manner: Manner,
    pub bounds: Bounds,
    pub bursts: usize,
}

impl Bench {
    async fn set(
        &self,
        target: Target,
        manner: Manner,
        bounds: Bounds,
    ) -> Result<(Origins, Proxy, Arc<Road>)> {
        let origins = Origins::start(&self.authority.acceptor, manner).await?;
        let proxy = Proxy::start(target, &origins, &self.authority, bounds, &self.forebay).await?;
        let tls = self.authority.connector.clone();
        let road = Road::new(target, proxy.address, origins.services.clone(), origins.issuer, tls);
        Ok((origins, proxy, Arc::new(road)))
    }

    /// All agents at once, again and again.
    pub async fn bursts(
        &self,
        target: Target,
        plan: Bursts,
        seed: u64,
    ) -> Result<(Figures, String)> {
        let (origins, proxy, road) = self.set(target, plan.manner, plan.bounds).await?;
        let mut dice = StdRng::seed_from_u64(seed);
        let (before, own) = (proxy.cpu(), cpu::own());
        let mut bursts = Vec::new();
        for _ in 0..plan.bursts {
            bursts.push(burst(&road, &mut dice, plan.manner).await);
            // About as long as a closing origin waits.
            tokio::time::sleep(if plan.manner == Manner::Closing {
                IDLE.saturating_sub(START).mul_f64(dice.random_range(0.9..1.1))
            } else {
                REST
            })
            .await;
        }
        let (used, own) = (proxy.cpu() - before, cpu::own() - own);
        let counted = origins.counted();
        let all: Vec<f64> = bursts.iter().flat_map(|seen| seen.millis.clone()).collect();
        let later: Vec<f64> = bursts.iter().skip(1).flat_map(|seen| seen.millis.clone()).collect();
        let sum = |of: fn(&Seen) -> u64| bursts.iter().map(of).sum::<u64>();
        let errors = sum(|seen| seen.failed);
        let calls = all.len() as u64 + errors;
        let figures = Figures {
            calls,
            errors,
            errors_retriable: sum(|seen| seen.failed_retriable),
            p50_ms: at(&all, 0.5),
            p95_ms: at(&all, 0.95),
            p99_ms: at(&all, 0.99),
            first_p99_ms: bursts.first().map_or(0.0, |seen| at(&seen.millis, 0.99)),
            later_p50_ms: at(&later, 0.5),
            later_p99_ms: at(&later, 0.99),
            connections: counted.connections,
            exchanges: counted.exchanges,
            token_keys: counted.token_keys,
            mixed_connections: counted.mixed,
            wrong_tenant: counted.wrong_tenant,
            proxy_cpu_us_per_call: used.as_secs_f64() * 1e6 / calls as f64,
            agents_cpu_us_per_call: own.as_secs_f64() * 1e6 / calls as f64,
            memory_mb: proxy.memory() as f64 / 1e6,
            samples: bursts.into_iter().flat_map(|seen| seen.samples).take(3).collect(),
            ..Figures::default()
        };
        let configuration = proxy.configuration.clone();
        proxy.stop().await;
        Ok((figures, configuration))
    }

    /// Streams of events: how late each comes after it was made.
    pub async fn streams(&self, target: Target) -> Result<Figures> {
        let (origins, proxy, road) = self.set(target, Manner::Usual, Bounds::None).await?;
        let origins = Arc::new(origins);
        let before = proxy.cpu();
        let mut streams = JoinSet::new();
        for number in 0..STREAMS {
            let (road, origins) = (Arc::clone(&road), Arc::clone(&origins));
            streams.spawn(async move {
                let call =
                    Call { tenant: 0, service: number % DESTINATIONS, method: Retriable::Yes };
                let mut late = Vec::new();
                let token = road.token(call).await?;
                let mut sender = road.connect(call.service).await?;
                let request = road.request(call, "/events", token.as_deref())?;
                let response = sender.send_request(request).await?;
                let mut text = String::new();
                frames(response, |data| {
                    text.push_str(&String::from_utf8_lossy(&data));
                    while let Some((event, _)) = text.split_once("\n\n") {
                        let stamp =
                            event.strip_prefix("data: ").and_then(|said| said.split(' ').next());
                        if let Some(stamp) = stamp.and_then(|stamp| stamp.parse().ok()) {
                            late.push(origins.since_stamp(stamp).as_secs_f64() * 1000.0);
                        }
                        text.drain(..event.len() + 2);
                    }
                })
                .await?;
                anyhow::Ok(late)
            });
        }
        let (mut first, mut all, mut errors) = (Vec::new(), Vec::new(), 0);
        while let Some(ended) = streams.join_next().await {
            match ended? {
                Ok(late) if late.len() == EVENTS as usize => {
                    first.extend(late.first());
                    all.extend(late);
                }
                Ok(_) | Err(_) => errors += 1,
            }
        }
        let used = proxy.cpu() - before;
        let figures = Figures {
            calls: all.len() as u64,
            errors,
            p50_ms: at(&all, 0.5),
            p99_ms: at(&all, 0.99),
            first_p99_ms: at(&first, 0.99),
            later_p50_ms: at(&first, 0.5),
            proxy_cpu_us_per_call: used.as_secs_f64() * 1e6 / all.len().max(1) as f64,
            ..Figures::default()
        };
        proxy.stop().await;
        Ok(figures)
    }

    /// Small calls, one after the other, by clients that keep their connections.
    pub async fn steady(&self, target: Target) -> Result<Figures> {
        let (_origins, proxy, road) = self.set(target, Manner::Usual, Bounds::Bounded).await?;
        // Connections and tokens first.
        closed_loop(&road, Duration::from_millis(700)).await?;
        let (before, since) = (proxy.cpu(), Instant::now());
        let seen = closed_loop(&road, STEADY).await?;
        let (used, took) = (proxy.cpu() - before, since.elapsed());
        let calls = seen.millis.len() as u64;
        let figures = Figures {
            calls,
            errors: seen.failed,
            p50_ms: at(&seen.millis, 0.5),
            p99_ms: at(&seen.millis, 0.99),
            proxy_cpu_us_per_call: used.as_secs_f64() * 1e6 / calls as f64,
            calls_per_second: calls as f64 / took.as_secs_f64(),
            memory_mb: proxy.memory() as f64 / 1e6,
            samples: seen.samples,
            ..Figures::default()
        };
        proxy.stop().await;
        Ok(figures)
    }
}

async fn burst(road: &Arc<Road>, dice: &mut StdRng, manner: Manner) -> Seen {
    let book = Book::default();
    let mut agents = JoinSet::new();
    for agent in 0..AGENTS {
        let begin = START.mul_f64(dice.random_range(0.0..1.0));
        for _ in 0..dice.random_range(3..=5) {
            let method = match manner {
                Manner::Closing if dice.random_bool(0.5) => Retriable::Yes,
                _ => Retriable::No,
            };
            let service = dice.random_range(0..DESTINATIONS);
            let call = Call { tenant: agent % TENANTS, service, method };
            let (road, book) = (Arc::clone(road), book.clone());
            agents.spawn(async move {
                tokio::time::sleep(begin).await;
                let since = Instant::now();
                let outcome = road.call(call).await;
                book.note(since, call, &outcome);
            });
        }
    }
    agents.join_all().await;
    book.close()
}

async fn closed_loop(road: &Arc<Road>, length: Duration) -> Result<Seen> {
    let (book, end) = (Book::default(), Instant::now() + length);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (road, book) = (Arc::clone(road), book.clone());
        clients.spawn(async move {
            let tenant = number % TENANTS;
            let call = Call { tenant, service: number % DESTINATIONS, method: Retriable::No };
            let token = road.token(call).await?;
            let mut sender = road.connect(call.service).await?;
            while Instant::now() < end {
                let since = Instant::now();
                let request = road.request(call, "/fast", token.as_deref())?;
                let response = sender.send_request(request).await?;
                let good = response.status().is_success();
                frames(response, drop).await?;
                let outcome = if good { Ok(()) } else { Err(anyhow::anyhow!("no success")) };
                book.note(since, call, &outcome);
                sender.ready().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(book.close())
}

/// The value that the part `quantile` stays below.
pub fn at(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(place.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
