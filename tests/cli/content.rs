//! The content of enqueued mail.

use crate::smtp_server::SmtpServer;
use crate::tool::Tool;

#[test]
fn each_option_is_in_the_mail() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    tool.file("body.html", "<p>From a file</p>");
    tool.file("report.pdf", "%PDF-1.7");
    tool.file("data.unheard-of", "???");
    let args = [
        "enqueue",
        "--from",
        "Ada <ada@example.com>",
        "--to",
        "bob@example.com",
        "--to",
        "Cy <cy@example.com>",
        "--cc",
        "dee@example.com",
        "--bcc",
        "eve@example.com",
        "--reply-to",
        "desk@example.com",
        "--subject",
        "The report",
        "--text",
        "-",
        "--html",
        "@body.html",
        "--attach",
        "report.pdf",
        "--attach",
        "data.unheard-of",
        "--header",
        "X-Ref: 7:8",
        "--template-id",
        "report",
    ];
    let output = tool.run_with_stdin(".from the standard input\n", &args);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let id = output.stdout.trim();
    assert_eq!(tool.show(id)["template_id"], "report");
    assert_eq!(tool.drain(&server.url())["sent"], 1);

    let mail = server.accepted().remove(0);
    assert_eq!(mail.from, "ada@example.com");
    assert_eq!(mail.to, ["bob@example.com", "cy@example.com", "dee@example.com", "eve@example.com"]);
    assert_eq!(mail.header("Subject").unwrap(), "The report");
    assert_eq!(mail.header("Reply-To").unwrap(), "desk@example.com");
    assert_eq!(mail.header("X-Ref").unwrap(), "7:8");
    assert!(mail.header("To").unwrap().contains("cy@example.com"));
    assert_eq!(mail.header("Cc").unwrap(), "dee@example.com");
    let text = String::from_utf8(mail.content).unwrap();
    assert!(!text.contains("eve@example.com"), "a Bcc recipient is only in the envelope");
    for part in [
        "\r\n.from the standard input",
        "<p>From a file</p>",
        "Content-Type: application/pdf",
        "Content-Type: application/octet-stream",
        "report.pdf",
        "data.unheard-of",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_mail_can_have_only_a_bcc_recipient() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let args = ["enqueue", "--from", "ada@example.com", "--bcc", "bob@example.com", "--html", "<p>x</p>"];
    tool.ok(&args);
    assert_eq!(tool.drain(&server.url())["sent"], 1);
    assert_eq!(server.accepted()[0].to, ["bob@example.com"]);
}
