//! The surroundings of a simulated process.

use std::task::{Context, Poll};
use std::time::Duration;

use flowkit_core::time::Mono;
use flowkit_runtime::Environment;

use super::host::client_of;
use super::stage::{self, Luck};
use crate::acting::PlannedPanic;
use crate::clock::HostClock;
use crate::history::{Place, What};

/// Clocks that run as the plan says, seeded ids, a process that can be frozen.
#[derive(Debug)]
pub(super) struct Surroundings {
    place: Place,
    /// True time when the process began, in microseconds.
    began: u64,
    clock: HostClock,
    seed: [u64; 2],
}

impl Surroundings {
    /// Of a process that begins now.
    pub(super) fn of(place: Place) -> Self {
        stage::with(|stage| {
            let (host, generation) = (u64::from(place.host), u64::from(place.generation));
            let mut dice = stage.dice(Luck::Process, host, generation);
            Self {
                place,
                began: turmoil::sim_elapsed().map_or(stage.now, micros),
                clock: stage.hosts[place.host as usize].clock,
                seed: [dice.draw(), dice.draw()],
            }
        })
    }
}

impl Surroundings {
    /// Of a client. The first one begins with the run.
    pub(super) fn of_client(place: Place) -> Self {
        let number = u64::from(client_of(place.host).unwrap_or_default());
        let generation = u64::from(place.generation);
        let (mut dice, clock) = stage::with(|stage| {
            let dice = stage.dice(Luck::Process, 1_000 * generation, number);
            (dice, stage.known(place.host).clock)
        });
        let now = turmoil::sim_elapsed().map_or(0, micros);
        Self {
            place,
            began: if generation > 1 { now } else { 0 },
            clock,
            seed: [dice.draw(), dice.draw()],
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Environment for Surroundings {
    fn mono_ms(&self, elapsed: Duration) -> u64 {
        // The driver looks at its clock as it hands the machine an input: nowhere else may it break.
        let breaks = stage::with(|stage| {
            let Some(host) = stage.host(self.place) else {
                return false;
            };
            let breaks = std::mem::take(&mut host.takes_input) && host.panics;
            if breaks {
                host.panics = false;
                stage.seen.fire("machine_panic");
                stage.note(What::Broke);
            }
            breaks
        });
        if breaks {
            std::panic::panic_any(PlannedPanic);
        }
        self.clock.now(self.began + micros(elapsed)).mono.0
    }

    fn elapsed_at(&self, mono_ms: u64) -> Duration {
        Duration::from_micros(self.clock.when(Mono(mono_ms)).saturating_sub(self.began))
    }

    fn wall_ms(&self) -> i64 {
        stage::with(|stage| {
            let now = stage.now;
            let clock = stage.state(self.place.host).map(|host| host.clock);
            let clock = clock.unwrap_or(self.clock);
            clock.now(now).wall_ms
        })
    }

    fn seed(&self) -> [u64; 2] {
        self.seed
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        stage::with(|stage| {
            let ready = stage.poll_pace(self.place, Luck::Pace, cx);
            if ready.is_ready()
                && let Some(host) = stage.host(self.place)
            {
                host.takes_input = true;
            }
            ready
        })
    }
}
