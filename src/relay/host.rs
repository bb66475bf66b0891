//! The name of the host, for operators.

use postrider_transport::mask_addresses;

/// The longest name that is shown, in characters: as long as a name of a host in Linux (`HOST_NAME_MAX`, gethostname(2)).
const LONGEST: usize = 64;

/// The name of this host. `None` if neither the system's file nor a variable has it. (The system call needs another dependency.)
pub(super) fn name() -> Option<String> {
    // Linux: proc(5). There, and in a container, it is the name that `hostname` prints.
    let system = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let variable = |name| std::env::var(name).ok();
    let names = [system, variable("HOSTNAME"), variable("COMPUTERNAME")];
    names.into_iter().flatten().find_map(|name| shown(&name))
}

/// The name as it is stored and shown. `None` if nothing is left of it.
pub(super) fn shown(name: &str) -> Option<String> {
    let printable: String = name.trim().chars().filter(|character| !character.is_control()).collect();
    let cut: String = mask_addresses(&printable).chars().take(LONGEST).collect();
    (!cut.is_empty()).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_is_no_address() {
        assert_eq!(shown(" mail-1\n").as_deref(), Some("mail-1"));
        assert_eq!(shown("mail\0-\u{1b}[1m2").as_deref(), Some("mail-[1m2"));
        assert_eq!(shown(" \n"), None);
        assert_eq!(shown(&"é".repeat(65)), Some("é".repeat(64)));
        let address = shown("ada@example.com").unwrap();
        assert!(!address.contains("ada@") && !address.is_empty(), "{address}");
    }
}
