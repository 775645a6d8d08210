use std::sync::Arc;

use clap::Parser;
use precedent_azure::cloud::CLOUDS;
use precedent_azure::provision::fake::{Fake, KEY, SUBSCRIPTION, Style};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// What a command printed as data, and how it ended.
struct Ended {
    lines: Vec<String>,
    result: Result<()>,
}

impl Ended {
    fn ok(self) -> Vec<String> {
        self.result.expect("it ends well");
        self.lines
    }

    fn failure(self) -> String {
        format!("{:?}", self.result.expect_err("it does not end well"))
    }
}

async fn precedent(fake: &Arc<Fake>, words: &[&str], json: bool, answer: Option<&str>) -> Ended {
    let subscription = ["--subscription", SUBSCRIPTION, "--cloud", "AzureCloud"];
    let words = ["provision"].iter().chain(words).chain(&subscription);
    let args = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
    let mut lines = Vec::new();
    let connect = |_| Ok(fake.connection());
    let mut ask = |_: &str| answer.map(str::to_owned);
    let result = act(args.into(), json, &connect, &mut ask, &mut |line| {
        lines.push(line);
        Ok(())
    })
    .await;
    Ended { lines, result }
}

fn fake() -> Arc<Fake> {
    Fake::new(CLOUDS[0], Style::Operation)
}

#[tokio::test]
async fn from_nothing_to_a_store_and_back() {
    for service in ["cosmos", "table"] {
        let fake = fake();
        let planned = precedent(&fake, &[service], false, None).await.ok();
        assert!(planned.iter().any(|line| line.contains("+ resource group")), "{planned:?}");
        precedent(&fake, &[service, "plan", "--check"], false, None).await.failure();
        assert!(fake.paths().is_empty(), "a plan changes nothing");

        let refused = precedent(&fake, &[service, "up"], false, None).await.failure();
        assert!(refused.contains("nobody can be asked") && refused.contains("code: 2"), "{refused}");
        precedent(&fake, &[service, "up"], false, Some("no")).await.failure();
        assert!(fake.paths().is_empty(), "nobody said yes");

        let made = precedent(&fake, &[service, "up"], false, Some("yes")).await.ok();
        assert!(made.iter().any(|line| line.contains(HIDDEN)), "{made:?}");
        assert!(!made.join("\n").contains(KEY));
        let planned = precedent(&fake, &[service, "plan", "--check"], false, None).await.ok();
        assert_eq!(planned.last().map(String::as_str), Some("nothing would change"));

        let refused = precedent(&fake, &[service, "destroy"], false, Some("another")).await.failure();
        assert!(refused.contains("nothing was deleted"), "{refused}");
        precedent(&fake, &[service, "destroy", "--yes"], false, None).await.ok();
        assert!(fake.paths().is_empty(), "{:?}", fake.paths());
        precedent(&fake, &[service, "destroy", "--yes"], false, None).await.ok();
    }
}

#[tokio::test]
async fn outputs_are_data_and_secrets_are_shown_only_where_it_was_said() {
    let fake = fake();
    let up = precedent(&fake, &["table", "up", "--yes"], false, None).await.ok();
    assert_eq!(
        up,
        [
            format!("primary_storage_connection_string = {HIDDEN}"),
            "table_name = eventsTable".to_owned(),
            "store = table://aieventsourcingstorage/eventsTable".to_owned(),
        ]
    );
    let json = precedent(&fake, &["table", "outputs"], true, None).await.ok();
    let json: serde_json::Value = serde_json::from_str(&json[0]).expect("one line of JSON");
    assert_eq!(json["primary_storage_connection_string"], serde_json::Value::Null);
    assert_eq!(json["table_name"], "eventsTable");
    let json = precedent(&fake, &["table", "outputs", "--show-secrets"], true, None).await.ok();
    assert!(json[0].contains(KEY), "{json:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("azure.env");
    let path = path.to_str().expect("a path");
    let lines = precedent(&fake, &["table", "outputs", "--env-file", path], false, None).await.ok();
    assert!(!lines.join("\n").contains(KEY), "it is in the file and nowhere else");
    let text = std::fs::read_to_string(path).expect("it was written");
    assert!(
        text.contains("\nAZURE_STORAGE_CONNECTION_STRING='DefaultEndpointsProtocol=https;AccountName="),
        "{text}"
    );
    assert!(text.contains("\nPRECEDENT_URL='table://aieventsourcingstorage/eventsTable'\n"), "{text}");
    std::fs::write(path, "mine").expect("written");
    fake.forget_calls();
    let refused =
        precedent(&fake, &["table", "up", "--yes", "--env-file", path], false, None).await.failure();
    assert!(refused.contains("was not written by this command"), "{refused}");
    assert!(fake.calls().is_empty(), "it is found out before Azure is asked for anything");
}

#[tokio::test]
async fn a_plan_is_one_line_of_json() {
    let fake = fake();
    let lines = precedent(&fake, &["cosmos"], true, None).await.ok();
    assert_eq!(lines.len(), 1);
    let plan: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(plan["changes"], true);
    assert_eq!(plan["steps"][3]["type"], "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers");
    assert_eq!(plan["steps"][3]["action"], "create");
    assert_eq!(plan["blockers"], json!([]));
}

#[tokio::test]
async fn what_is_in_the_way_ends_the_plan_with_2_and_up_before_the_question() {
    let fake = fake();
    fake.take("aieventsourcingstorage");
    for action in ["plan", "up"] {
        let ended = precedent(&fake, &["table", action], false, Some("yes")).await.failure();
        assert!(ended.contains("the name is taken") && ended.contains("code: 2"), "{ended}");
    }
    assert!(fake.paths().is_empty());
}

#[tokio::test]
async fn a_group_with_other_things_in_it_is_deleted_only_with_force() {
    let fake = fake();
    precedent(&fake, &["table", "up", "--yes"], false, None).await.ok();
    fake.put(
        "resourcegroups/ai-event-sourcing-rg/providers/microsoft.web/sites/theirs",
        json!({"name": "theirs", "type": "Microsoft.Web/sites"}),
    );
    let refused = precedent(&fake, &["table", "destroy", "--yes"], false, None).await.failure();
    assert!(refused.contains("holds 1 resource that is not of this store"), "{refused}");
    assert!(!fake.calls().iter().any(|call| call.starts_with("DELETE")));
    precedent(&fake, &["table", "destroy", "--yes", "--force"], false, None).await.ok();
    assert!(fake.paths().is_empty());
}

#[tokio::test]
async fn a_file_says_the_same_and_options_win() {
    let fake = fake();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("azure.toml");
    std::fs::write(&path, "[table]\ngroup = \"theirs\"\ntable = \"theirs\"\n").expect("written");
    let path = path.to_str().expect("a path");
    let words = ["table", "up", "--yes", "--file", path, "--table", "mine"];
    precedent(&fake, &words, false, None).await.ok();
    assert!(fake.paths().iter().any(|path| path.ends_with("/theirs")), "{:?}", fake.paths());
    assert!(fake.paths().iter().any(|path| path.ends_with("/tables/mine")), "{:?}", fake.paths());
    std::fs::write(path, "[table]\nacount = \"x\"\n").expect("written");
    let refused = precedent(&fake, &["table", "--file", path], false, None).await.failure();
    assert!(refused.contains("line 2: unknown field `acount`"), "{refused}");
}

#[tokio::test]
async fn an_option_that_means_nothing_to_the_action_is_refused() {
    let fake = fake();
    for words in [
        &["cosmos", "plan", "--yes"][..],
        &["cosmos", "outputs", "--check"],
        &["table", "destroy", "--show-secrets"],
        &["table", "up", "--format", "arm"],
    ] {
        let refused = precedent(&fake, words, false, None).await.failure();
        assert!(refused.contains("is an option of"), "{refused}");
    }
    assert!(fake.calls().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn an_export_never_writes_through_a_link() {
    let fake = fake();
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, elsewhere) = (folder.path().join("there"), folder.path().join("elsewhere"));
    std::fs::create_dir(&dir).expect("made");
    std::fs::write(&elsewhere, "mine").expect("written");
    let link = dir.join("table.json");
    std::os::unix::fs::symlink(&elsewhere, &link).expect("linked");
    let export = ["table", "export", "--format", "arm", "--force", "--dir", dir.to_str().expect("a path")];
    let refused = precedent(&fake, &export, false, None).await.failure();
    assert!(refused.contains("is no file"), "{refused}");
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("it is there"), "mine");
    std::fs::remove_file(&link).expect("removed");
    for _ in ["new", "over itself"] {
        precedent(&fake, &export, false, None).await.ok();
    }
    assert_eq!(std::fs::read_dir(&dir).expect("a folder").count(), 1, "nothing half written is left");
}

#[tokio::test]
async fn an_export_asks_nothing_of_azure_and_overwrites_nothing() {
    let fake = fake();
    for format in FORMATS {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("infra");
        let dir = dir.to_str().expect("a path");
        let words = ["cosmos", "export", "--format", format.name(), "--dir", dir];
        let lines = precedent(&fake, &words, false, None).await.ok();
        assert!(lines.iter().all(|path| Path::new(path).is_file()), "{lines:?}");
        let refused = precedent(&fake, &words, false, None).await.failure();
        assert!(refused.contains("is not overwritten"), "{refused}");
    }
    let refused = precedent(&fake, &["cosmos", "export", "--format", "bicep"], false, None).await.failure();
    assert!(refused.contains("main.bicep, store.bicep"), "{refused}");
    let arm = precedent(&fake, &["cosmos", "export", "--format", "arm"], false, None).await.ok();
    assert!(serde_json::from_str::<serde_json::Value>(&arm[0]).is_ok());
    assert!(fake.calls().is_empty());
}
