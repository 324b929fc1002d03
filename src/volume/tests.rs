//! The store's promises that need no container.

use super::*;

struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> (Bench, Store) {
        let dir = std::env::temp_dir().join(format!("minidock-volumes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        (Bench(dir.clone()), Store { dir })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(name: &str) -> Record {
    Record::new(name, BTreeMap::from([("a".into(), "b".into())]), BTreeMap::new())
}

#[test]
fn names_are_dockers() {
    for good in ["ab", "a.b", "A_b-c.1", &"x".repeat(255)] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "a", ".a", "-a", "a/b", "a b", "..", "é1", "a\n", &"x".repeat(256)] {
        assert!(!is_name(bad) && check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn of_two_makers_one_wins_and_the_record_is_read_back() {
    let (_bench, store) = Bench::new("make");
    let wins: usize = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| store.create(&record("data")).unwrap())).collect();
        makers.into_iter().map(|maker| usize::from(maker.join().unwrap())).sum()
    });
    assert_eq!(wins, 1);
    assert_eq!(store.names(), ["data"]);
    assert_eq!(store.find("data").unwrap().labels["a"], "b");
    assert!(store.data("data").is_dir());
    let left: Vec<_> = fs::read_dir(&store.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["data"], "half-made ones are gone");
}

#[test]
fn a_volume_in_use_stays_and_a_near_miss_is_named() {
    let (_bench, store) = Bench::new("use");
    store.create(&record("data")).unwrap();
    let error = store.remove("data", &|_| vec!["c1".into()]).unwrap_err().to_string();
    assert_eq!(error, "remove data: volume is in use - [c1]");
    assert!(store.find("dta").unwrap_err().to_string().contains("no such volume; did you mean data?"));
    store.remove("data", &|_| vec![]).unwrap();
    assert!(store.read("data").unwrap().is_none());
}

#[test]
fn an_anonymous_volume_that_finds_a_user_at_the_last_moment_comes_back() {
    let (_bench, store) = Bench::new("back");
    let mut anonymous = record("aa");
    anonymous.labels.insert(ANONYMOUS.into(), String::new());
    store.create(&anonymous).unwrap();
    fs::write(store.data("aa").join("file"), "kept").unwrap();
    let looks = std::cell::Cell::new(0);
    let late_user = |_: &str| {
        looks.set(looks.get() + 1);
        if looks.get() == 2 { vec!["c2".to_string()] } else { vec![] }
    };
    store.remove_anonymous("aa", &late_user).unwrap();
    assert_eq!(fs::read_to_string(store.data("aa").join("file")).unwrap(), "kept");
    store.remove_anonymous("aa", &|_| vec![]).unwrap();
    assert!(store.names().is_empty());
    store.create(&record("named")).unwrap();
    store.remove_anonymous("named", &|_| vec![]).unwrap();
    assert_eq!(store.names(), ["named"], "a named one is left alone");
}

#[test]
fn what_a_killed_maker_left_is_swept_and_a_living_one_s_is_not() {
    let (_bench, store) = Bench::new("sweep");
    store.create(&record("data")).unwrap();
    fs::create_dir_all(store.dir.join(".dead/_data/x")).unwrap();
    let alive = store.workspace().unwrap();
    store.sweep();
    assert!(!store.dir.join(".dead").exists() && alive.path.exists());
    assert!(store.read("data").unwrap().is_some());
}

#[test]
fn fields_of_a_newer_version_are_kept() {
    let text = r#"{"version":1,"name":"data","driver":"local","created":"","colour":"red"}"#;
    let record: Record = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap()["colour"], "red");
}
