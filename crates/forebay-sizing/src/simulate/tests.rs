use forebay_pool::{Budget, ClassName, ClassSettings, Kind, Mode, PoolSettings, Share};

use super::*;
use crate::{chance_to_wait, for_variance, mean_wait, offered_load};

const HOLD: Duration = Duration::from_millis(50);

fn class(kind: Kind) -> ClassSettings {
    ClassSettings {
        kind,
        guarantee: Share::Seats(0),
        checkout_timeout: Duration::from_secs(600),
        mode: Mode::Off,
        ..ClassSettings::default()
    }
}

fn pool(budget: u32) -> PoolSettings {
    PoolSettings {
        ai_share: 100,
        classes: vec![(ClassName::new("work"), class(Kind::Core))],
        warm_up: 100,
        seed: 1,
        ..PoolSettings::new("simulated", Budget::Fixed(budget))
    }
}

fn stream(arrivals: Arrivals, service: Times) -> Stream {
    Stream {
        name: "work",
        class: "work",
        arrivals,
        queries: Queries::ONE,
        service,
        naming: Naming::Unnamed,
        client: Client::CALM,
    }
}

fn scenario(budget: u32, arrivals: Arrivals, service: Times, minutes: u64) -> Scenario {
    Scenario {
        pool: pool(budget),
        server: Server::well(Duration::from_millis(5)),
        streams: vec![stream(arrivals, service)],
        length: Duration::from_secs(60 * minutes),
        settle: Duration::from_secs(20),
        seed: 42,
    }
}

#[test]
fn timing() {
    for (c, rate, mins) in [(5u32, 80.0, 60u64), (5, 80.0, 240), (10, 160.0, 60), (20, 320.0, 60)] {
        let t = std::time::SystemTime::now();
        let f =
            scenario(c, Arrivals::Poisson { rate }, Times::Exponential { mean: HOLD }, mins).play();
        let s = &f.streams[0];
        let load = offered_load(rate, HOLD);
        let expect = mean_wait(c, load, HOLD).unwrap();
        println!(
            "c {c} n {} util {:.4} mean {:?} erlang {:?} ratio {:.4} P {:.4}/{:.4} took {:?}",
            s.granted,
            f.utilisation,
            s.wait.mean(),
            expect,
            s.wait.mean().as_secs_f64() / expect.as_secs_f64(),
            s.wait.longer_than(Duration::ZERO),
            chance_to_wait(c, load),
            t.elapsed()
        );
    }
}
