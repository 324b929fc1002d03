//! The state machine under random commands, several processes at once, checked against a model: what the commands say
//! and what the containers are afterwards must be what some order of the commands gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;

use host::TestHost;
use host::command::{Output, Running};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Gone,
    Created,
    Running,
    Paused,
    Exited,
}

const NAMES: [&str; 2] = ["one", "two"];

#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Run,
    Start,
    Stop,
    Kill,
    Pause,
    Unpause,
    Restart,
    Rm,
    RmForce,
    Rename,
    Exec,
    Update,
    Policy,
}

const VERBS: [Verb; 14] = [
    Verb::Create,
    Verb::Run,
    Verb::Start,
    Verb::Stop,
    Verb::Kill,
    Verb::Pause,
    Verb::Unpause,
    Verb::Restart,
    Verb::Rm,
    Verb::RmForce,
    Verb::Rename,
    Verb::Exec,
    Verb::Update,
    Verb::Policy,
];

type World = [State; 2];

/// A command on one of the two names.
type Step = (Verb, usize);

fn words((verb, which): Step) -> Vec<&'static str> {
    let (name, other) = (NAMES[which], NAMES[1 - which]);
    match verb {
        Verb::Create => vec!["create", "--name", name, "busybox", "sleep", "1000"],
        Verb::Run => vec!["run", "-d", "--name", name, "busybox", "sleep", "1000"],
        Verb::Start => vec!["start", name],
        Verb::Stop => vec!["stop", "-t", "0", name],
        Verb::Kill => vec!["kill", name],
        Verb::Pause => vec!["pause", name],
        Verb::Unpause => vec!["unpause", name],
        Verb::Restart => vec!["restart", "-t", "0", name],
        Verb::Rm => vec!["rm", name],
        Verb::RmForce => vec!["rm", "-f", name],
        Verb::Rename => vec!["rename", name, other],
        Verb::Exec => vec!["exec", name, "true"],
        Verb::Update => vec!["update", "--pids-limit", "100", name],
        // What a person stops or kills stays so whatever the policy says: the model needs not know of it.
        Verb::Policy => vec!["update", "--restart", if which == 0 { "always" } else { "on-failure:3" }, name],
    }
}

/// The model: what a command does, and whether it succeeds.
fn step(world: World, (verb, which): Step) -> (World, bool) {
    use State::{Created, Exited, Gone, Paused, Running};
    let now = world[which];
    let becomes = |state: State| {
        let mut next = world;
        next[which] = state;
        (next, true)
    };
    let fails = (world, false);
    match (verb, now) {
        (Verb::RmForce, _) => becomes(Gone),
        (Verb::Create, Gone) => becomes(Created),
        (Verb::Run, Gone) => becomes(Running),
        (Verb::Create | Verb::Run, _) | (_, Gone) => fails,
        (Verb::Start, Paused) => fails,
        (Verb::Start | Verb::Restart, _) => becomes(Running),
        (Verb::Stop | Verb::Kill, Running | Paused) => becomes(Exited),
        (Verb::Stop, _) => (world, true),
        (Verb::Kill, _) => fails,
        (Verb::Pause, Running) => becomes(Paused),
        (Verb::Unpause, Paused) => becomes(Running),
        (Verb::Pause | Verb::Unpause, _) => fails,
        (Verb::Rm, Created | Exited) => becomes(Gone),
        (Verb::Rm, _) => fails,
        (Verb::Rename, _) if world[1 - which] != Gone => fails,
        (Verb::Rename, _) => ([world[1], world[0]], true),
        (Verb::Exec, Running) | (Verb::Update | Verb::Policy, _) => (world, true),
        (Verb::Exec, _) => fails,
    }
}

/// All worlds that some order of the steps leads to, if each has succeeded or failed as it did. As with docker, a name is
/// looked up once: a command that has found its container goes on with it, even if that has got the other name meanwhile.
/// And a signal is sent by whoever has found the program running: of two kills at once both may succeed. In the
/// middle of a restart nothing runs.
fn possible(world: World, steps: &[(Step, bool)], renamed: bool, mut lived: [bool; 2]) -> BTreeSet<World> {
    for (nth, state) in world.iter().enumerate() {
        lived[nth] |= matches!(state, State::Running | State::Paused);
    }
    if steps.is_empty() {
        return BTreeSet::from([world]);
    }
    let mut worlds = BTreeSet::new();
    for first in 0..steps.len() {
        let mut rest = steps.to_vec();
        let ((verb, which), success) = rest.remove(first);
        let by_name_alone = matches!(verb, Verb::Create | Verb::Run | Verb::Rename);
        let found_before = (renamed && !by_name_alone).then_some(1 - which);
        for meant in [Some(which), found_before].into_iter().flatten() {
            let (after, succeeds) = step(world, (verb, meant));
            if success == succeeds {
                let renamed = renamed || (matches!(verb, Verb::Rename) && success);
                worlds.extend(possible(after, &rest, renamed, lived));
            }
            let restarts = rest.iter().any(|((verb, _), success)| matches!(verb, Verb::Restart) && *success);
            let late = success && matches!(verb, Verb::Kill) && lived[meant];
            let between = !success && matches!(verb, Verb::Kill | Verb::Pause) && restarts;
            if success != succeeds && (late || between) {
                worlds.extend(possible(world, &rest, renamed, lived));
            }
        }
    }
    worlds
}

fn look(host: &TestHost) -> World {
    NAMES.map(|name| {
        let state = host.minidock(&["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", name]);
        let text = state.out();
        let (status, pid) = text.trim().split_once(' ').unwrap_or(("", "0"));
        let alive = std::path::Path::new(&format!("/proc/{pid}/root")).exists();
        match status {
            "" => State::Gone,
            "created" if pid == "0" => State::Created,
            "running" if alive => State::Running,
            "paused" if alive => State::Paused,
            "exited" if pid == "0" => State::Exited,
            other => panic!("{name} is {other:?} with pid {pid} (alive: {alive})"),
        }
    })
}

/// Marsaglia's xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn step(&mut self) -> Step {
        (VERBS[self.below(VERBS.len())], self.below(NAMES.len()))
    }
}

/// `MINIDOCK_MODEL_SEED=N` walks another way.
fn walk(seed: u64, rounds: usize, at_once: usize) {
    let other: u64 = std::env::var("MINIDOCK_MODEL_SEED").map_or(0, |text| text.parse().expect("a number"));
    let seed = seed.wrapping_add(other.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    println!("seed {seed:#x}");
    let host = TestHost::new();
    let mut random = Random(seed);
    let mut world = [State::Gone; 2];
    for round in 0..rounds {
        let steps: Vec<Step> = (0..at_once).map(|_| random.step()).collect();
        let mut running: Vec<_> = steps.iter().map(|step| Some(host.spawn(&words(*step)))).collect();
        let mut outputs: Vec<Option<Output>> = steps.iter().map(|_| None).collect();
        let is_exec = |nth: &usize| matches!(steps[*nth].0, Verb::Exec);
        let (execs, others): (Vec<usize>, Vec<usize>) = (0..steps.len()).partition(is_exec);
        for nth in others {
            outputs[nth] = running[nth].take().map(Running::wait);
        }
        let now = look(&host);
        // A program that is run when its container is just being frozen is frozen too, in docker as here: it goes on when
        // that does. Nothing else may hold it up.
        let frozen: Vec<&str> = (0..2).filter(|nth| now[*nth] == State::Paused).map(|nth| NAMES[nth]).collect();
        let is_running =
            |nth: &&usize, running: &mut [Option<Running>]| !running[**nth].as_mut().is_none_or(Running::has_ended);
        let held_up = execs.iter().any(|nth| is_running(&nth, &mut running));
        if held_up && !frozen.is_empty() {
            host.minidock(&[&["unpause"], &frozen[..]].concat()).ok();
        }
        for nth in execs {
            outputs[nth] = running[nth].take().map(Running::wait);
        }
        if held_up && !frozen.is_empty() {
            host.minidock(&[&["pause"], &frozen[..]].concat()).ok();
        }
        let outputs: Vec<Output> = outputs.into_iter().flatten().collect();
        for ((verb, _), output) in steps.iter().zip(&outputs) {
            // The signal that ended the container ended what was run in it.
            let cut_off = at_once > 1 && matches!(verb, Verb::Exec) && output.code() == 137;
            assert!(cut_off || matches!(output.code(), 0 | 1 | 125 | 126), "{}", output.describe());
            assert!(!output.err().contains("panicked") && !output.err().contains("warning"), "{}", output.describe());
        }
        let told: Vec<(Step, bool)> =
            steps.into_iter().zip(&outputs).map(|(step, output)| (step, output.code() == 0)).collect();
        // A program that is being run when another command ends its container is cut off, in docker too.
        let told: Vec<_> =
            told.into_iter().filter(|((verb, _), _)| at_once == 1 || !matches!(verb, Verb::Exec)).collect();
        let worlds = possible(world, &told, false, [false; 2]);
        let story: String = outputs.iter().map(|output| output.describe()).collect();
        assert!(worlds.contains(&now), "round {round}: {world:?} became {now:?} and none of {worlds:?} by\n{story}");
        world = now;
    }
    host.minidock(&["rm", "-f", "one", "two"]);
    host.finish();
}

#[test]
fn one_command_after_the_other_does_what_the_model_says() {
    walk(0x9e37_79b9_7f4a_7c15, 120, 1);
}

#[test]
fn two_commands_at_once_are_as_one_after_the_other() {
    walk(0x2545_f491_4f6c_dd1d, 60, 2);
}

#[test]
fn four_commands_at_once_are_as_one_after_the_other() {
    walk(0xd134_2543_de82_ef95, 40, 4);
}
