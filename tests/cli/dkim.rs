//! DKIM signatures by the tool's options.

use crate::authenticator::Dns;
use crate::python::Python;
use crate::smtp_server::SmtpServer;
use crate::tool::Tool;

const RSA: &str = include_str!("../../transports/core/tests/keys/rsa-pkcs8.pem");
const ED25519: &str = include_str!("../../transports/core/tests/keys/ed25519.pem");
const FLAGS: [&str; 6] = ["--dkim-domain", "example.com", "--dkim-selector", "rsa", "--dkim-key", "rsa.pem"];

fn tool() -> Tool {
    let tool = Tool::new();
    tool.file("rsa.pem", RSA);
    tool.file("ed25519.pem", ED25519);
    tool
}

fn work(tool: &Tool, url: &str, flags: &[&str]) -> crate::tool::Output {
    tool.run(&[&["work", "--drain", "--transport", url], flags].concat())
}

#[test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
fn mail_is_signed_also_by_combined_transports() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (dns, mut python, server) = (Dns::example(), Python::start(), SmtpServer::start());
    let ed25519 = ["--dkim-domain", "example.com", "--dkim-selector", "ed25519", "--dkim-key", "ed25519.pem"];
    let tool = tool();
    let url = server.url();
    let combined = format!("failover(smtp://127.0.0.1:1 timeout(1m round-robin({url} {url})))");
    for url in [&url, &combined] {
        for flags in [FLAGS, ed25519] {
            tool.enqueue(&["--subject", "Grüße", "--text", "Hi!"]);
            let output = work(&tool, url, &flags);
            assert_eq!(output.code, 0, "{}", output.stderr);
            let mail = server.accepted().pop().unwrap().content;
            assert_eq!(runtime.block_on(dns.verify(&mail)), ["pass"], "mail-auth, {url}");
            assert_eq!(python.verify(&mail, &dns.0), ["pass"], "dkimpy, {url}");
        }
    }
    assert_eq!(server.accepted_count(), 4);
}

#[test]
fn a_signing_error_is_one_line_before_anything_is_sent() {
    let (tool, server) = (tool(), SmtpServer::start());
    tool.file("not-a-key.pem", "h0rse");
    tool.file("1024.pem", include_str!("../../transports/core/tests/keys/rsa-1024.pem"));
    tool.enqueue(&[]);
    let url = server.url();
    let with = |index: usize, value: &'static str| {
        let mut flags = FLAGS;
        flags[index] = value;
        flags.to_vec()
    };
    let key = |name: &'static str| with(5, name);
    let with_other = format!("failover({url} postmark://h0rse@default)");
    for (url, flags, code, why) in [
        (&url, FLAGS[..2].to_vec(), 2, "--dkim-selector"),
        (&url, FLAGS[..4].to_vec(), 2, "--dkim-key"),
        (&url, FLAGS[2..].to_vec(), 2, "--dkim-domain"),
        (&url, key("missing.pem"), 1, "--dkim-key: missing.pem cannot be read"),
        (&url, key("not-a-key.pem"), 2, "neither PEM nor"),
        (&url, key("1024.pem"), 2, "2048"),
        (&url, key("/dev/zero"), 2, "neither PEM nor"),
        (&url, with(1, "exa mple"), 2, "the domain is not a DNS name"),
        (&url, with(3, "s;h=from"), 2, "the selector is not a DNS name"),
        (&with_other, FLAGS.to_vec(), 2, "postmark:// cannot use --dkim-domain"),
    ] {
        let output = work(&tool, url, &flags);
        assert_eq!(output.code, code, "{flags:?}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{flags:?}: {}", output.stderr);
        assert!(output.stderr.contains(why) && !output.stderr.contains("h0rse"), "{flags:?}: {}", output.stderr);
    }
    assert_eq!((server.accepted_count(), tool.stats()["pending"].clone()), (0, 1.into()));
    let help = tool.ok(&["work", "--help"]);
    assert!(help.contains("--dkim-domain") && help.contains("feature dkim"), "{help}");
}
