//! Ids, and names for containers that the user gave none.

/// A new container id: 64 hexadecimal digits from the kernel's random source.
///
/// The first twelve are the host name, and one of digits alone is read as an address by every resolver (inet_aton(3)).
pub fn new_id() -> String {
    loop {
        let mut bytes = [0u8; 32];
        fill_random(&mut bytes);
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if is_a_host_name(&id) {
            return id;
        }
    }
}

fn is_a_host_name(id: &str) -> bool {
    id.bytes().take(12).any(|byte| !byte.is_ascii_digit())
}

fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        // EINTR is the only failure for such a small request once the source is up (getrandom(2)).
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
}

/// A name made from an id: readable, and as good as unique.
pub fn from_id(id: &str, attempt: u32) -> String {
    let digits = |from: usize| usize::from_str_radix(id.get(from..from + 4).unwrap_or("0"), 16).unwrap_or(0);
    let name = format!("{}_{}", MOODS[digits(0) % MOODS.len()], BIRDS[digits(4) % BIRDS.len()]);
    if attempt == 0 { name } else { format!("{name}{}", digits(8) + attempt as usize) }
}

const MOODS: [&str; 48] = [
    "able", "airy", "amber", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery", "clever", "cosy",
    "crisp", "curious", "dapper", "eager", "early", "easy", "fair", "fleet", "fond", "frank", "fresh", "gentle",
    "glad", "golden", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow",
    "merry", "modest", "neat", "nimble", "patient", "placid", "plucky", "quick", "quiet", "sunny", "tidy", "witty",
];

const BIRDS: [&str; 48] = [
    "avocet",
    "bittern",
    "blackcap",
    "bunting",
    "buzzard",
    "chough",
    "coot",
    "cormorant",
    "crane",
    "curlew",
    "dipper",
    "dunlin",
    "egret",
    "eider",
    "fieldfare",
    "finch",
    "gannet",
    "godwit",
    "grebe",
    "harrier",
    "heron",
    "hobby",
    "jackdaw",
    "kestrel",
    "kingfisher",
    "kite",
    "knot",
    "lapwing",
    "linnet",
    "magpie",
    "merlin",
    "nuthatch",
    "oriole",
    "osprey",
    "petrel",
    "pipit",
    "plover",
    "puffin",
    "redstart",
    "robin",
    "ruff",
    "sandpiper",
    "shrike",
    "siskin",
    "skylark",
    "swift",
    "wagtail",
    "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_digits_and_differ() {
        let (a, b) = (new_id(), new_id());
        assert!(a.len() == 64 && a.bytes().all(|byte| byte.is_ascii_hexdigit()) && a != b);
    }

    #[test]
    fn an_id_that_begins_with_twelve_digits_is_no_host_name() {
        assert!(!is_a_host_name("609217819779aa") && is_a_host_name("60921781977a11"));
    }

    #[test]
    fn a_second_attempt_gives_another_name() {
        let id = new_id();
        assert_ne!(from_id(&id, 0), from_id(&id, 1));
        assert_ne!(from_id(&id, 1), from_id(&id, 2));
    }
}
