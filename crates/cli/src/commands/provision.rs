//! `provision`: the Azure resources of a store, planned, made, checked and removed.
//!
//! What there has to be, and how it is compared, made and deleted, is in `precedent_azure::provision`; this is what people
//! say to it, and what they are told. Nothing is changed before somebody said yes, or `--yes`.

mod env_file;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::ProgressBar;
use precedent::ErrorKind;
use precedent_azure::cloud::Cloud;
use precedent_azure::credentials;
use precedent_azure::provision::{
    Action as StepAction, Arm, Connection, Demolition, FORMATS, File, Format, Output as Value, Outputs, Plan,
    Principal, Progress, RealTime, Service, Settings, Shown, Wishes, caller, cli_subscription, destroy,
    export, inspect, outputs, plan, shown, up,
};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::{Global, read_failed};
use crate::output::{Output, say};
use crate::progress;
use crate::text::{counted, escaped};

/// Which store.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    service: ServiceArgs,
}

#[derive(clap::Subcommand)]
enum ServiceArgs {
    /// Cosmos DB for NoSQL: an account, a database, a container
    Cosmos(Box<CosmosArgs>),
    /// Table Storage: a storage account, a table
    Table(Box<TableArgs>),
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// Say what 'up' would change; changes nothing
    Plan,
    /// Make what is not there and mend what differs
    Up,
    /// Print where the store is, and its key
    Outputs,
    /// Delete the resource group and everything in it
    Destroy,
    /// Print the same resources for another tool
    Export,
}

#[derive(clap::Args)]
struct CosmosArgs {
    /// What to do
    #[arg(value_enum, default_value_t = Action::Plan)]
    action: Action,
    #[command(flatten)]
    common: Common,
    /// A location; the first takes writes where only one does. May be repeated [default: eastus]
    #[arg(long = "location", value_name = "LOCATION", help_heading = "Resources")]
    locations: Vec<String>,
    /// Whether every location takes writes [default: true, with --serverless false]
    #[arg(long, value_name = "true|false", help_heading = "Resources")]
    multiple_write_locations: Option<bool>,
    /// The database [default: eventSourcingDb]
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    database: Option<String>,
    /// The container [default: eventsContainer]
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    container: Option<String>,
    /// Request units a second of the database, always [default: 400]
    #[arg(long, value_name = "RU/S", group = "capacity", help_heading = "Resources")]
    throughput: Option<u64>,
    /// The most request units a second, scaled from a tenth of it
    #[arg(long, value_name = "RU/S", group = "capacity", help_heading = "Resources")]
    autoscale: Option<u64>,
    /// Pay by request; the account is made for it, with one location
    #[arg(long, group = "capacity", help_heading = "Resources")]
    serverless: bool,
    /// /eventType, or /eventType,/period which lifts the 20 GB of one type [default: /eventType]
    #[arg(long, value_name = "PATHS", help_heading = "Resources")]
    partition_key: Option<String>,
}

#[derive(clap::Args)]
struct TableArgs {
    /// What to do
    #[arg(value_enum, default_value_t = Action::Plan)]
    action: Action,
    #[command(flatten)]
    common: Common,
    /// The location [default: eastus]
    #[arg(long, value_name = "LOCATION", help_heading = "Resources")]
    location: Option<String>,
    /// The SKU: Standard_LRS, Standard_ZRS, Standard_GRS, Standard_RAGRS, Standard_GZRS, Standard_RAGZRS
    /// [default: Standard_LRS]
    #[arg(long, value_name = "SKU", help_heading = "Resources")]
    sku: Option<String>,
    /// The table [default: eventsTable]
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    table: Option<String>,
}

#[derive(clap::Args, Default)]
struct Common {
    /// A TOML file with the same options; options on the command line win
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The subscription's id [env: AZURE_SUBSCRIPTION_ID] [default: that of the Azure CLI]
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// AzureCloud, AzureUSGovernment or AzureChinaCloud [env: AZURE_CLOUD] [default: AzureCloud]
    #[arg(long, value_name = "NAME")]
    cloud: Option<String>,
    /// The resource group [default: precedent-cosmos-rg, ai-event-sourcing-rg]
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    group: Option<String>,
    /// The account [default: a name made of the subscription and the group, aieventsourcingstorage]
    #[arg(long, value_name = "NAME", help_heading = "Resources")]
    account: Option<String>,
    /// Give the calling identity a role and turn keys off, so that there is no secret
    #[arg(long, help_heading = "Resources")]
    entra: bool,
    /// The object id of the identity that gets the role, instead of the calling one
    #[arg(long, value_name = "ID", help_heading = "Resources")]
    principal: Option<String>,
    /// plan: exit with 1 if 'up' would change something
    #[arg(long)]
    check: bool,
    /// up, destroy: do not ask
    #[arg(long, short)]
    yes: bool,
    /// up, outputs: print secrets
    #[arg(long)]
    show_secrets: bool,
    /// up, outputs: write the environment of the store to a file only you can read
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// destroy: also what is not ours in the group. --env-file, --dir: overwrite a file that is there
    #[arg(long)]
    force: bool,
    /// export: arm, bicep, pulumi-yaml, pulumi-python or terraform
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// export: write the files into a folder, and not to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn format(text: &str) -> Result<Format, String> {
    Format::named(text).ok_or_else(|| {
        let names: Vec<_> = FORMATS.iter().map(|format| format.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

impl Common {
    /// An option that means nothing to the action is a mistake, and is not passed over.
    fn check(&self, action: Action) -> Result<()> {
        use Action::{Destroy, Export, Outputs, Plan, Up};
        let told: [(&str, bool, &[Action]); 7] = [
            ("--check", self.check, &[Plan]),
            ("--yes", self.yes, &[Up, Destroy]),
            ("--show-secrets", self.show_secrets, &[Up, Outputs]),
            ("--env-file", self.env_file.is_some(), &[Up, Outputs]),
            ("--force", self.force, &[Up, Outputs, Destroy, Export]),
            ("--format", self.format.is_some(), &[Export]),
            ("--dir", self.dir.is_some(), &[Export]),
        ];
        match told.iter().find(|(_, is_told, of)| *is_told && !of.contains(&action)) {
            None => Ok(()),
            Some((option, _, of)) => {
                let of: Vec<String> = of.iter().map(|action| format!("{action:?}").to_lowercase()).collect();
                Err(Failure::new(format!("{option} is an option of {}", of.join(" and "))))
            }
        }
    }
}

/// What was asked for, whatever the service.
struct Request {
    service: Service,
    action: Action,
    common: Common,
    wishes: Wishes,
}

impl From<Args> for Request {
    fn from(args: Args) -> Self {
        let shared = |common: &Common| Wishes {
            group: common.group.clone(),
            account: common.account.clone(),
            entra: common.entra.then_some(true),
            principal: common.principal.clone(),
            ..Wishes::default()
        };
        match args.service {
            ServiceArgs::Cosmos(args) => {
                let wishes = Wishes {
                    locations: (!args.locations.is_empty()).then_some(args.locations),
                    multiple_write_locations: args.multiple_write_locations,
                    database: args.database,
                    container: args.container,
                    throughput: args.throughput,
                    autoscale: args.autoscale,
                    serverless: args.serverless.then_some(true),
                    partition_key: args.partition_key,
                    ..shared(&args.common)
                };
                Self { service: Service::Cosmos, action: args.action, common: args.common, wishes }
            }
            ServiceArgs::Table(args) => {
                let wishes = Wishes {
                    location: args.location,
                    sku: args.sku,
                    table: args.table,
                    ..shared(&args.common)
                };
                Self { service: Service::Table, action: args.action, common: args.common, wishes }
            }
        }
    }
}

/// How somebody is asked; `None` if nobody is there.
type Ask<'a> = &'a mut (dyn FnMut(&str) -> Option<String> + Send);
/// Where lines of data go.
type Lines<'a> = &'a mut (dyn FnMut(String) -> Result<()> + Send);

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let connect = |cloud: Cloud| -> Result<Connection> {
        Ok(Connection {
            cloud,
            credential: credentials::entra_in(cloud)?,
            transport: credentials::transport()?,
            pace: std::sync::Arc::new(RealTime::default()),
        })
    };
    let mut ask = |question: &str| {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        say(format_args!("{question}"));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    };
    let mut out = Output::stdout();
    let done = act(args.into(), global.json, &connect, &mut ask, &mut |line| out.line(line)).await;
    // What was found out before it failed is data all the same.
    out.flush()?;
    done
}

async fn act(
    request: Request,
    json: bool,
    connect: &(dyn Fn(Cloud) -> Result<Connection> + Send + Sync),
    ask: Ask<'_>,
    out: Lines<'_>,
) -> Result<()> {
    let Request { service, action, common, wishes } = request;
    common.check(action)?;
    let file = match &common.file {
        None => File::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| read_failed(path, &error))?;
            File::parse(&text, &path.display().to_string())?
        }
    };
    let wishes = wishes.over(file.wishes(service));
    let cloud = match common.cloud.as_ref().or(file.cloud.as_ref()) {
        Some(name) => Cloud::named(name)?,
        None => Cloud::from_environment()?,
    };
    let from_environment = || std::env::var("AZURE_SUBSCRIPTION_ID").ok().filter(|id| !id.is_empty());
    let subscription = common.subscription.clone().or(file.subscription).or_else(from_environment);
    if action == Action::Export {
        let settings = Settings::new(service, cloud, subscription, &wishes, None)?;
        return write_export(&settings, &common, out);
    }
    let subscription = match subscription {
        Some(id) => id,
        None => cli_subscription().await.ok_or_else(|| {
            Failure::new("no subscription is named")
                .hint("--subscription ID or AZURE_SUBSCRIPTION_ID names one, 'az login' gives one")
        })?,
    };
    // Whatever can be found wrong without Azure is.
    let stranger = Principal { id: "00000000-0000-0000-0000-000000000000".into(), kind: None };
    Settings::new(service, cloud, Some(subscription.clone()), &wishes, Some(stranger))?;
    if let Some(path) = &common.env_file {
        env_file::check(path, common.force)?;
    }
    let arm = Arm::new(connect(cloud)?, &subscription)?;
    let principal = match wishes.entra == Some(true) {
        false => None,
        // Where another identity is named, not knowing our own is no reason to fail.
        true if wishes.principal.is_some() => caller(&arm).await.ok(),
        true => Some(caller(&arm).await.map_err(explained)?),
    };
    let settings = Settings::new(service, cloud, Some(subscription), &wishes, principal)?;
    match action {
        Action::Plan => {
            let plan = plan(&arm, &settings).await.map_err(explained)?;
            print_plan(&plan, &settings, json, out)?;
            refuse_blocked(&plan)?;
            match common.check && plan.has_changes() {
                true => Err(Failure::no()),
                false => Ok(()),
            }
        }
        Action::Up => bring_up(&arm, &settings, &common, json, ask, out).await,
        Action::Outputs => {
            let with_secrets = common.show_secrets || common.env_file.is_some();
            let found = outputs(&arm, &settings, with_secrets).await.map_err(explained)?;
            print_outputs(&found, &common, json, out)
        }
        Action::Destroy => tear_down(&arm, &settings, &common, ask).await,
        Action::Export => Ok(()),
    }
}

/// Errors of Azure with the hints of this command, which has nothing to do with the token of a server.
fn explained(error: precedent::Error) -> Failure {
    let failure = Failure::new(error.message());
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Overloaded => {
            failure.hint("what was made stays; the same command again goes on from there")
        }
        _ => failure,
    }
}

fn refuse_blocked(plan: &Plan) -> Result<()> {
    let blockers = plan.blockers();
    match blockers.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::new(one)),
        [first, rest @ ..] => {
            rest.iter().for_each(|why| say(format_args!("error: {}", escaped(why))));
            Err(Failure::new(first))
        }
    }
    .map_err(|failure: Failure| failure.hint("nothing was changed, and 'up' would change nothing"))
}

async fn bring_up(
    arm: &Arm,
    settings: &Settings,
    common: &Common,
    json: bool,
    ask: Ask<'_>,
    out: Lines<'_>,
) -> Result<()> {
    let plan = plan(arm, settings).await.map_err(explained)?;
    // With up the plan is talk: the outputs are the data.
    let mut talk = |line: String| {
        say(line);
        Ok(())
    };
    print_plan(&plan, settings, false, &mut talk)?;
    refuse_blocked(&plan)?;
    if plan.has_changes() {
        if !common.yes {
            match ask("Make these changes? Type 'yes':") {
                Some(answer) if answer == "yes" => {}
                Some(_) => return Err(Failure::new("the answer was not 'yes'; nothing was changed")),
                None => {
                    return Err(Failure::new("nobody can be asked here, and nothing was changed")
                        .hint("--yes makes the changes without asking"));
                }
            }
        }
        let teller = Teller::new();
        let made = up(arm, settings, &plan, &|progress| teller.tell(progress)).await;
        teller.end();
        made.map_err(|error| match error.kind() {
            ErrorKind::Unauthorized
            | ErrorKind::LimitExceeded
            | ErrorKind::Unavailable
            | ErrorKind::Overloaded => Failure::new(error.message())
                .hint("what was made stays; the same command again goes on from there"),
            _ => Failure::new(error.message()),
        })?;
    }
    let with_secrets = common.show_secrets || common.env_file.is_some();
    let found = outputs(arm, settings, with_secrets).await.map_err(explained)?;
    print_outputs(&found, common, json, out)?;
    for line in first_event(settings, &found, common) {
        say(line);
    }
    Ok(())
}

/// The command that records the first event, and what it needs to be run.
fn first_event(settings: &Settings, found: &Outputs, common: &Common) -> Vec<String> {
    let append = "precedent append --type ai.decision.made --data '{\"decision\":\"approve\"}'";
    let mut lines = vec!["record the first event:".to_owned()];
    let sourced = |path: &Path| format!("  set -a; . {}; set +a", quoted(&here(path)));
    match (&common.env_file, found.keyless) {
        (Some(path), _) => {
            lines.push(sourced(path));
            lines.push(format!("  {append}"));
        }
        (None, true) => {
            for output in found.environment.iter().filter(|output| output.name != "PRECEDENT_URL") {
                if let Shown::Plain(value) = &output.value {
                    lines.push(format!("  export {}={value}", output.name));
                }
            }
            lines.push(format!("  {append} --store {}", found.url));
        }
        (None, false) => {
            let mut options = vec![
                format!("--group {}", quoted(&settings.group)),
                format!("--account {}", settings.account),
            ];
            options.extend(
                common.file.as_ref().map(|file| format!("--file {}", quoted(&file.display().to_string()))),
            );
            options.extend(common.subscription.as_ref().map(|id| format!("--subscription {id}")));
            options.extend(common.cloud.as_ref().map(|name| format!("--cloud {}", quoted(name))));
            lines.push(format!(
                "  precedent provision {} outputs {} --env-file azure.env",
                settings.service().name(),
                options.join(" ")
            ));
            lines.push(sourced(Path::new("azure.env")));
            lines.push(format!("  {append} --store {}", found.url));
        }
    }
    lines
}

/// `.` looks for a name without a folder on the path.
fn here(path: &Path) -> String {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => format!("./{}", path.display()),
        _ => path.display().to_string(),
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/:._-+=@%".contains(c);
    match !text.is_empty() && text.chars().all(harmless) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn print_plan(plan: &Plan, settings: &Settings, json: bool, out: Lines<'_>) -> Result<()> {
    if json {
        let step = |step: &precedent_azure::provision::Step| {
            let change = |c: &precedent_azure::provision::Change| json!({"path": c.path, "actual": c.actual, "wanted": c.wanted, "fixed": c.is_fixed});
            json!({
                "type": step.kind.arm(),
                "name": step.name,
                "id": step.id,
                "action": step.action.name(),
                "changes": step.changes.iter().map(change).collect::<Vec<_>>(),
                "blocked": step.blocked,
                "note": step.note,
            })
        };
        let plan = json!({
            "service": settings.service().name(),
            "cloud": settings.cloud.name,
            "subscription": settings.subscription,
            "store": settings.url(),
            "register": plan.register,
            "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
            "notes": plan.notes,
            "changes": plan.has_changes(),
            "blockers": plan.blockers(),
        });
        return out(plan.to_string());
    }
    let subscription = settings.subscription.as_deref().unwrap_or_default();
    out(format!("subscription {subscription} in {}", settings.cloud.name))?;
    if let Some(namespace) = &plan.register {
        out(format!("  + registration for {namespace}"))?;
    }
    for step in &plan.steps {
        let (mark, said) = match step.action {
            StepAction::Create => ('+', "is made"),
            StepAction::Change => ('~', "is changed"),
            StepAction::Nothing => ('=', "is as it has to be"),
            StepAction::Wait => ('…', "is waited for"),
            StepAction::Use => ('=', "is used"),
        };
        let mark = if step.blocked.is_some() || step.changes.iter().any(|c| c.is_fixed) { '!' } else { mark };
        let said = if mark == '!' { "is in the way" } else { said };
        let note = step.note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
        out(format!("  {mark} {} {}: {said}{}", step.kind.noun(), step.name, escaped(&note)))?;
        for change in &step.changes {
            let fixed = if change.is_fixed { "   cannot be changed" } else { "" };
            let line = format!("{}: {} → {}", change.path, shown(&change.actual), shown(&change.wanted));
            out(format!("      {}{fixed}", escaped(&line)))?;
        }
        if let Some(why) = &step.blocked {
            out(format!("      {}", escaped(why)))?;
        }
    }
    for note in &plan.notes {
        out(format!("note: {}", escaped(note)))?;
    }
    match plan.has_changes() || !plan.blockers().is_empty() {
        true => Ok(()),
        false => out("nothing would change".to_owned()),
    }
}

const HIDDEN: &str = "…hidden, --show-secrets shows it";

fn print_outputs(found: &Outputs, common: &Common, json: bool, out: Lines<'_>) -> Result<()> {
    if let Some(path) = &common.env_file {
        let variables: Vec<(&str, String)> =
            found.environment.iter().filter_map(|output| Some((output.name, plain(output, true)?))).collect();
        env_file::write(path, &variables, common.force)?;
        let count = counted(variables.len() as u64, "variable");
        say(format_args!(
            "wrote {count} to {}, which only you can read",
            escaped(&path.display().to_string())
        ));
    }
    if json {
        let all = found.values.iter().map(|output| {
            let value = plain(output, common.show_secrets);
            (output.name.to_owned(), json!(value))
        });
        let mut all: serde_json::Map<String, serde_json::Value> = all.collect();
        all.insert("store".into(), json!(found.url));
        return out(serde_json::Value::Object(all).to_string());
    }
    for output in &found.values {
        let value = plain(output, common.show_secrets).unwrap_or_else(|| HIDDEN.to_owned());
        out(format!("{} = {}", output.name, escaped(&value)))?;
    }
    out(format!("store = {}", escaped(&found.url)))
}

/// The value, unless it is a secret that is not to be shown.
fn plain(output: &Value, with_secrets: bool) -> Option<String> {
    match &output.value {
        Shown::Plain(text) => Some(text.clone()),
        Shown::Secret(secret) => {
            secret.as_ref().filter(|_| with_secrets).map(|secret| secret.secret().to_owned())
        }
    }
}

async fn tear_down(arm: &Arm, settings: &Settings, common: &Common, ask: Ask<'_>) -> Result<()> {
    let group = &settings.group;
    let doomed = match inspect(arm, settings).await.map_err(explained)? {
        Demolition::Nothing => {
            say(format_args!("there is no resource group '{group}'; nothing is to be deleted"));
            return Ok(());
        }
        Demolition::UnderWay => Vec::new(),
        Demolition::Group(doomed) => {
            say(format_args!("the resource group '{group}' is deleted, and with it:"));
            for thing in &doomed {
                let whose = if thing.ours { "" } else { "   not of this store" };
                say(format_args!("  - {} {}{whose}", escaped(&thing.kind), escaped(&thing.name)));
            }
            if doomed.iter().any(|thing| thing.ours) {
                say(format_args!("    and everything recorded in it, for good"));
            }
            doomed
        }
    };
    let others = doomed.iter().filter(|thing| !thing.ours).count() as u64;
    if others > 0 && !common.force {
        return Err(Failure::new(format!(
            "the resource group '{group}' holds {} that {} not of this store; nothing was deleted",
            counted(others, "resource"),
            if others == 1 { "is" } else { "are" }
        ))
        .hint("--force deletes what is in it all the same"));
    }
    if !common.yes {
        match ask(&format!("Type the name of the resource group to delete it ({group}):")) {
            Some(answer) if answer == *group => {}
            Some(_) => return Err(Failure::new("that is not its name; nothing was deleted")),
            None => {
                return Err(Failure::new("nobody can be asked here, and nothing was deleted")
                    .hint("--yes deletes without asking"));
            }
        }
    }
    let teller = Teller::new();
    let what = format!("deleting the resource group '{group}'");
    teller.tell(Progress::Begins { what: &what, at: 0, of: 0 });
    let waiting = |waited: Duration| teller.tell(Progress::Waits { seconds: waited.as_secs() });
    let gone = destroy(arm, settings, &waiting).await;
    teller.end();
    gone.map_err(|error| {
        Failure::new(error.message())
            .hint("what Azure has begun to delete it goes on deleting; the same command again waits for it")
    })?;
    say(format_args!("deleted the resource group '{group}'"));
    Ok(())
}

/// Tells on a terminal in one line that changes, elsewhere in a line for each thing.
struct Teller {
    bar: ProgressBar,
    doing: Mutex<String>,
}

impl Teller {
    fn new() -> Self {
        Self { bar: progress::steps(), doing: Mutex::default() }
    }

    fn tell(&self, progress: Progress<'_>) {
        let mut doing = self.doing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match progress {
            Progress::Begins { what, at, of } => {
                *doing = if of == 0 { what.to_owned() } else { format!("{at}/{of} {what}") };
                self.bar.set_message(escaped(&doing).into_owned());
                if self.bar.is_hidden() {
                    say(escaped(&doing));
                }
            }
            Progress::Waits { seconds } => {
                self.bar.set_message(format!("{}, {seconds} s", escaped(&doing)));
                self.bar.tick();
            }
            // Where there is no terminal, the beginning of the next thing says it.
            Progress::Did { what } if !self.bar.is_hidden() => {
                self.bar.suspend(|| say(format_args!("done: {}", escaped(what))));
            }
            Progress::Did { .. } => {}
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn write_export(settings: &Settings, common: &Common, out: Lines<'_>) -> Result<()> {
    let format = common.format.ok_or_else(|| {
        let names: Vec<_> = FORMATS.iter().map(|format| format.name()).collect();
        Failure::new("no format is named").hint(format!("--format takes {}", names.join(", ")))
    })?;
    let export = export(settings, format)?;
    let Some(dir) = &common.dir else {
        return match export.files.as_slice() {
            [(_, text)] => out(text.trim_end_matches('\n').to_owned()),
            files => {
                let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
                Err(Failure::new(format!(
                    "an export as {} is {}: {}",
                    format.name(),
                    counted(files.len() as u64, "file"),
                    names.join(", ")
                ))
                .hint("--dir DIR writes them"))
            }
        };
    };
    let failed = |path: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let files: Vec<(PathBuf, &String)> =
        export.files.iter().map(|(name, text)| (dir.join(name), text)).collect();
    if let Some((there, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok())
        && !common.force
    {
        return Err(Failure::new(format!("{} is there already, and is not overwritten", there.display()))
            .hint("--force overwrites it"));
    }
    if let Some((there, _)) =
        files.iter().find(|(path, _)| path.symlink_metadata().is_ok_and(|found| !found.is_file()))
    {
        return Err(Failure::new(format!("{} is no file, and is not overwritten", there.display())));
    }
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for (path, text) in files {
        write_file(dir, &path, text).map_err(|error| failed(&path, error))?;
        out(path.display().to_string())?;
    }
    say(format_args!("apply it with:  {}", export.command));
    Ok(())
}

/// Whole or not at all, and never through a link to somewhere else.
fn write_file(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new();
    // As any other new file: readable as far as the user's umask allows. It holds no secret.
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = file.prefix(".export-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests;
