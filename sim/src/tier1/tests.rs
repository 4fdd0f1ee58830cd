//! What plans cannot show: that panics are seen wherever they are, and who goes first on a host.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use flowkit_runtime::{Client, WorkerBuilder};

use super::host::client_host;
use super::hosted::paced;
use super::piece::{Acting, Piece};
use super::stage::{self, Luck};
use crate::history::Place;
use crate::plan::{Action, Fault, Plan, When};

/// Nothing but a client, which does one thing.
struct Solo(Rc<dyn Fn(Place)>);

impl std::fmt::Debug for Solo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Solo")
    }
}

impl Piece for Solo {
    fn cast(
        &self,
        builder: WorkerBuilder,
        _plan: &Arc<Plan>,
        _place: Place,
        roles: &[String],
    ) -> WorkerBuilder {
        let handler = || {
            flowkit_runtime::handler_fn(async |_, _: flowkit_runtime::Batch<()>| {
                Ok(flowkit_runtime::BatchResult::<()>::new())
            })
        };
        roles
            .iter()
            .fold(builder, |builder, role| builder.role(role, handler()))
    }

    fn clients(&self, _plan: &Plan) -> u32 {
        1
    }

    fn client(&self, number: u32, _library: Client) -> Acting {
        let act = self.0.clone();
        Box::pin(async move {
            let host = client_host(number);
            act(stage::with(|stage| stage.known(host).place(host)));
            pending().await
        })
    }

    fn inner_clients(&self, library: Client) -> Acting {
        self.client(0, library)
    }

    fn answers(&self) -> usize {
        1
    }
}

/// A world in which nobody submits anything.
fn idle(seed: u64) -> Plan {
    let mut plan = Plan::small().fit_hosts();
    plan.seed = seed;
    plan.actions = Vec::<Action>::new();
    plan.heal_ms = 200;
    plan
}

#[test]
fn a_panic_of_a_task_that_nobody_waits_for_is_seen() {
    let act = |_: Place| {
        tokio::task::spawn_local(async { panic!("nobody waits for this one") });
        stage::with(stage::Stage::answered);
    };
    let outcome = super::play(&idle(1), Rc::new(Solo(Rc::new(act))), false);
    let broken: Vec<_> = outcome.broken.iter().map(|b| b.promise).collect();
    assert_eq!(broken, ["no_panic"]);
    let what = &outcome.broken[0].what;
    assert!(what.contains("nobody waits for this one"), "{what}");
    // The next run on this thread begins without it.
    let calm = |_: Place| stage::with(stage::Stage::answered);
    let outcome = super::play(&idle(1), Rc::new(Solo(Rc::new(calm))), false);
    assert_eq!(outcome.broken.len(), 0, "{:?}", outcome.broken);
}

/// The order in which four tasks of one host come to their ends.
fn order(seed: u64, yield_permille: u32) -> Vec<u32> {
    let order = Rc::new(RefCell::new(Vec::new()));
    let ends = order.clone();
    let act = move |place: Place| {
        for task in 0..4 {
            let ends = ends.clone();
            let work = paced(place, Luck::Client, async move {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                ends.borrow_mut().push(task);
                if ends.borrow().len() == 4 {
                    stage::with(stage::Stage::answered);
                }
            });
            tokio::task::spawn_local(work);
        }
    };
    let mut plan = idle(seed);
    plan.world.yield_permille = yield_permille;
    let outcome = super::play(&plan, Rc::new(Solo(Rc::new(act))), false);
    assert_eq!(outcome.broken.len(), 0, "{:?}", outcome.broken);
    order.take()
}

#[test]
fn seeds_give_the_tasks_of_a_host_many_orders_and_each_seed_one() {
    let orders: BTreeSet<Vec<u32>> = (0..50).map(|seed| order(seed, 300)).collect();
    assert!(orders.len() >= 8, "{orders:?}");
    assert_eq!(order(7, 300), order(7, 300));
    let orders: BTreeSet<Vec<u32>> = (0..10).map(|seed| order(seed, 0)).collect();
    assert_eq!(
        orders.len(),
        1,
        "where nobody lets others go first: {orders:?}"
    );
}

#[test]
fn plans_draw_how_often_tasks_let_others_go_first() {
    let rates = (0..50).map(|seed| Plan::for_hosts(seed).world.yield_permille);
    let rates: BTreeSet<u32> = rates.map(|rate| rate / 100).collect();
    assert_eq!(rates, (0..5).collect(), "from none to half of the turns");
}

#[test]
fn each_stop_of_a_process_has_the_grace_that_the_plan_gives_it() {
    let stop = |ms, grace_ms| Fault::Shutdown {
        host: 2,
        when: When::At { ms },
        grace_ms,
        down_ms: 10,
    };
    // The second one is written down first.
    let mut plan = Plan::small().with(stop(9_000, 70)).with(stop(1_000, 30));
    plan.heal_ms = 18_000;
    let outcome = super::run(&plan.fit_hosts(), true);
    assert_eq!(outcome.broken.len(), 0, "{:?}", outcome.broken);
    let asked = outcome.history.iter().filter_map(|event| match event.what {
        crate::history::What::Process {
            what: crate::history::Life::Asked { grace_ms },
            ..
        } => Some(grace_ms),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [30, 70]);
}
