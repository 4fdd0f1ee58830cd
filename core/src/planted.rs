//! Bugs planted on purpose, to see that the simulator's checkers find them.
//!
//! Each bug is one line at the decision it spoils: `if is_planted(Bug::…)`. Without the feature
//! `planted-bugs` that is a constant `false`: no cost, no trace in a binary. With it, a bug is
//! planted for the calling thread (`plant`), so that threads may look for different ones.

/// Where a bug can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In a machine: whatever drives it.
    Machines,
    /// In a driver, the handler API, the client or the engine: where whole processes run.
    Processes,
    /// In the handling of a run's child processes: only where the operating system's own run, which no
    /// simulation has. `runtime/tests/planted.rs` judges them.
    Children,
}

macro_rules! bugs {
    ($($reach:ident $part:literal {
        $($bug:ident = $name:literal, $promise:literal, $about:literal;)+
    })+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $about] $bug,)+)+
        }

        #[cfg(feature = "planted-bugs")]
        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$($(Self::$bug,)+)+];

            /// Its id, as in `cargo xtask mutants --only ID`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$bug => $name,)+)+ }
            }

            /// The part of the engine that it spoils.
            #[must_use]
            pub const fn part(self) -> &'static str {
                match self { $($(Self::$bug => $part,)+)+ }
            }

            /// Where it can strike.
            #[must_use]
            pub const fn reach(self) -> Reach {
                match self { $($(Self::$bug => Reach::$reach,)+)+ }
            }

            /// The promise that should be seen broken.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self { $($(Self::$bug => $promise,)+)+ }
            }

            /// What it does, in one line.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $($(Self::$bug => $about,)+)+ }
            }
        }
    };
}

bugs! {
    Machines "lease" {
        LeaseRevived = "lease-revived", "single_owner",
            "A confirmation processed after the lease lapsed revives the run.";
        LeaseIgnored = "lease-ignored", "single_owner",
            "A worker does not stop a run whose lease lapsed.";
        ExpiredUnread = "expired-unread", "single_owner",
            "An owner expires a lease without reading its stream to the end first.";
        LeaseFromAnswer = "lease-from-answer", "single_owner",
            "A lease counts from the confirmation of its heartbeat, not from its sending.";
        BeatAssumed = "beat-assumed", "single_owner",
            "A heartbeat that was not confirmed counts as confirmed.";
    }
    Machines "token check" {
        OldTokenAccepted = "old-token-accepted", "single_owner",
            "An owner takes events of a token that is not the current one.";
        GrantUnchecked = "grant-unchecked", "single_owner",
            "A worker takes a START although the store says that its token is not current.";
        FencedIgnored = "fenced-ignored", "single_owner",
            "A worker goes on with a run that it was told is fenced.";
    }
    Machines "take once" {
        TakenTwice = "taken-twice", "single_owner",
            "A process takes a token again that it has ended.";
    }
    Machines "seq" {
        CopyApplied = "copy-applied", "settle",
            "An event that stands in the stream twice is applied twice.";
        GapIgnored = "gap-ignored", "effect_once",
            "An event is applied although one before it is missing.";
    }
    Machines "checkpoint" {
        CheckpointAhead = "checkpoint-ahead", "single_owner",
            "The checkpoint of an event is kept although its batch is not accepted.";
        CheckpointUncounted = "checkpoint-uncounted", "settle",
            "A checkpoint is stored without the number of batches behind it.";
        SavedLost = "saved-lost", "resume_point",
            "The batch that was in work does not get the checkpoint that was saved in it.";
        AcceptedAgain = "accepted-again", "resume_point",
            "A new holder does not skip batches that are accepted.";
    }
    Machines "cursor" {
        CursorEarly = "cursor-early", "effect_once",
            "A reader's cursor moves with the first chunk of a batch, not with the last.";
        CursorOverAccepted = "cursor-over-accepted", "resume_point",
            "A reader's cursor counts batches of another source's half-done artifact as behind it.";
        CursorUncounted = "cursor-uncounted", "settle",
            "A cursor is stored without the number of batches behind it.";
    }
    Machines "fan-in" {
        FanInEarly = "fan-in-early", "start_rule",
            "A node that waits for all of its parents starts while one is open.";
        SkippedCounts = "skipped-counts", "start_rule",
            "A skipped parent counts like a finished one.";
        AnyWaits = "any-waits", "start_rule",
            "A node that waits for any of its parents waits for all of them.";
        CountShort = "count-short", "start_rule",
            "A node that waits for so many of its parents starts with one less.";
    }
    Machines "streaming" {
        FirstBatchIgnored = "first-batch-ignored", "start_rule",
            "A node that may start with its parents' first batches waits for their ends.";
        OnBatchIgnored = "on-batch-ignored", "start_rule",
            "An `on_batch` edge counts from its parent's end, not from its first batch.";
    }
    Machines "routing" {
        RouteSwapped = "route-swapped", "start_rule",
            "What a failure is routed to runs after a success, too.";
        HandledFails = "handled-fails", "settle",
            "A failure that was handled makes its task fail.";
        UnhandledPasses = "unhandled-passes", "settle",
            "A failure that nothing handles counts as handled.";
        FailureSpares = "failure-spares", "cancel_final",
            "A task that failed leaves its other nodes as they are.";
        FailureUntold = "failure-untold", "cancel_final",
            "Runs of a task that failed are not told to end.";
    }
    Machines "retry" {
        BackoffIgnored = "backoff-ignored", "retry_bounded",
            "A failed node is ready again at once.";
        PermanentRetried = "permanent-retried", "retry_bounded",
            "A permanent failure is tried again.";
        RetryOnceMore = "retry-once-more", "retry_bounded",
            "A node gets one attempt more than its policy says.";
        LossIsFailure = "loss-is-failure", "single_owner",
            "A lost lease counts as a failure of the handler.";
        PermanentOnIgnored = "permanent-on-ignored", "retry_bounded",
            "A failure that the graph calls permanent is tried again.";
    }
    Machines "losses" {
        LossOnceMore = "loss-once-more", "retry_bounded",
            "A node may lose one grant more in a row than its policy says.";
        LossOnceLess = "loss-once-less", "retry_bounded",
            "A node fails at the last loss in a row that its policy lets it have.";
    }
    Machines "cancel" {
        GrantAfterCancel = "grant-after-cancel", "cancel_final",
            "A run of a cancelled task that ends is granted anew.";
        CancelUnchecked = "cancel-unchecked", "cancel_final",
            "A worker's check of a START does not look at the cancel flag.";
        CancelAckedEarly = "cancel-acked-early", "cancel_final",
            "A cancel is acknowledged before its commit.";
        GraceIgnored = "grace-ignored", "cancel_final",
            "A handler that ignores its cancel is never dropped.";
        LookIgnored = "look-ignored", "cancel_seen",
            "The regular look at the store's cancel flag ends no run.";
        LookMisreads = "look-misreads", "cancel_seen",
            "A cancel that the regular look finds is told as the task's failure.";
        ReasonMixed = "reason-mixed", "cancel_final",
            "Runs of a task that failed are told that a user asked for their end.";
        SourceUnnamed = "source-unnamed", "cancel_final",
            "A reader is not told that what failed is a source of its own.";
    }
    Machines "order" {
        PriorityIgnored = "priority-ignored", "priority",
            "Ready nodes are granted in the order they became ready, whatever their priority.";
        DelayIgnored = "delay-ignored", "delayed",
            "A task that is to start later starts at once.";
    }
    Machines "limits" {
        LimitIgnored = "limit-ignored", "limits",
            "More nodes run than a limit says.";
        LimitLeaked = "limit-leaked", "settle",
            "A grant that ended still counts against the limits of its type and key.";
        LimitUncounted = "limit-uncounted", "limits",
            "A new owner does not count the grants that it finds.";
        LimitUnwoken = "limit-unwoken", "settle",
            "Nodes that wait for a key's limit are not looked at when it has room.";
        OverloadTaken = "overload-taken", "limits",
            "An owner that has as many tasks as it may takes one more.";
        StartsForgotten = "starts-forgotten", "limits",
            "A new owner believes that nothing was started before it came.";
        StartsUnlimited = "starts-unlimited", "limits",
            "As many nodes start within a time as there are.";
    }
    Machines "pause" {
        PauseIgnored = "pause-ignored", "paused",
            "Nodes of a paused task are granted.";
        PauseAckedEarly = "pause-acked-early", "paused",
            "A pause is acknowledged before its commit.";
        PauseForgotten = "pause-forgotten", "paused",
            "A new owner lets paused tasks go on.";
        ControlRepeated = "control-repeated", "settle",
            "A copy of a pause that comes late is carried out again.";
        ResumedIdle = "resumed-idle", "settle",
            "Nodes that were ready when their task was paused are forgotten when it goes on.";
    }
    Machines "restart" {
        NewGrantsEnded = "new-grants-ended", "single_owner",
            "A new owner takes the grants of a worker's living process for those of a dead one.";
        AnyIncarnation = "any-incarnation", "single_owner",
            "A process takes commands that are for another incarnation of its worker.";
        DrainTakes = "drain-takes", "stops",
            "A worker that was told to stop takes new runs.";
        DrainUntold = "drain-untold", "stops",
            "A worker that was told to stop does not tell its runs.";
        DrainUnbounded = "drain-unbounded", "stops",
            "A worker that stops waits until its last words are confirmed, however long.";
    }
    Machines "readers" {
        NeverPolls = "never-polls", "settle",
            "A reader looks for input only when it is told of some.";
        NeverRecalled = "never-recalled", "settle",
            "A reader that waits for a source without a slot is never recalled.";
    }
    Machines "adapters" {
        ProposalIgnored = "proposal-ignored", "effect_once",
            "An input adapter that a handler proposes is not used.";
        ProposalFirst = "proposal-first", "effect_once",
            "What a handler proposes wins over the adapter that the graph names.";
        StrictIgnored = "strict-ignored", "settle",
            "A worker that is strict about adapters takes one without its list.";
        EndUnlooked = "end-unlooked", "settle",
            "A reader that believes the end after one more look never has that look.";
        InputLost = "input-lost", "run_protocol",
            "A START carries no input.";
        ListlessSkipped = "listless-skipped", "effect_once",
            "An artifact without the list that is to be cut gives no batch.";
    }
    Machines "artifacts" {
        StagedUnsent = "staged-unsent", "stored",
            "A large artifact is told as staged, and its body is never sent.";
        StagedEarly = "staged-early", "stored",
            "A batch with a large artifact is told before the store has its body.";
        BodiesKept = "bodies-kept", "stored",
            "Bodies of large artifacts that nothing points to stay in the store.";
    }
    Machines "announcements" {
        AnnouncedOnce = "announced-once", "settle",
            "A worker announces itself when it starts, and never again.";
        AnnouncedAsAnother = "announced-as-another", "announced",
            "A worker announces itself under another id.";
        AnnouncedOneRole = "announced-one-role", "announced",
            "A worker announces the first of its roles only.";
        AnnouncedOneType = "announced-one-type", "announced",
            "The type that a worker announces is the first of its roles.";
        AnnouncedRoom = "announced-room", "announced",
            "A worker announces room for one run more than it has.";
        AnnouncedUnversioned = "announced-unversioned", "announced",
            "A worker announces no version.";
        AnnouncedLeaving = "announced-leaving", "announced",
            "A worker that nobody told to stop announces that it is draining.";
    }
    Machines "dedup" {
        DedupCollides = "dedup-collides", "settle",
            "A START whose identity is like another one's is refused as a copy of it.";
    }
    Machines "takeover" {
        LoadedFirst = "loaded-first", "settle",
            "A new owner loads the tasks before it raises the shard epoch.";
        RotStopsLoad = "rot-stops-load", "settle",
            "A task that cannot be read keeps its shard from being loaded.";
        LeftOutSilent = "left-out-silent", "settle",
            "Who asks for a task that was left out at loading gets no answer.";
        SparedForgotten = "spared-forgotten", "settle",
            "A task that the store refused to set aside is never tried again.";
        NeverBegunKept = "never-begun-kept", "stops",
            "What workers never began because they stopped stays granted when their engine stops.";
        RotHidesWorkers = "rot-hides-workers", "settle",
            "A worker whose record cannot be read keeps all of them from being known.";
        RetryLost = "retry-lost", "settle",
            "A new owner forgets when a failed node is to be tried again.";
        WaitForgotten = "wait-forgotten", "retry_bounded",
            "A new owner tries failed nodes again at once.";
        CancelForgotten = "cancel-forgotten", "cancel_final",
            "A new owner does not know which runs were told to end.";
    }
    Machines "commit" {
        UnknownIsDone = "unknown-is-done", "settle",
            "A commit of unknown outcome is taken for made.";
        UnknownDropped = "unknown-dropped", "effect_once",
            "A commit of unknown outcome is dropped, and the next one sent in its place.";
        SubmitAckedEarly = "submit-acked-early", "no_lost_task",
            "A submission is acknowledged before its commit.";
        AckedUnsynced = "acked-unsynced", "no_lost_task",
            "An embedded engine acknowledges what is applied, but not synced.";
        SyncCoversAll = "sync-covers-all", "no_lost_task",
            "A sync is taken to cover what was applied while it ran.";
    }
    Machines "sum" {
        SumUnchecked = "sum-unchecked", "settle",
            "The counts of TASK_DONE are not held against the accepted batches.";
        TotalsRestart = "totals-restart", "results",
            "A run's totals begin at nothing, not at those of the accepted batches.";
        ResultUnstored = "result-unstored", "results",
            "What a node's finalize returned is not stored.";
        MarkLost = "mark-lost", "results",
            "What a batch marked as its node's result is not stored with it.";
    }
    Machines "capacity" {
        OneSlotMore = "one-slot-more", "capacity",
            "A worker has one slot more than its capacity.";
        SlotsIgnored = "slots-ignored", "capacity",
            "An owner grants without looking at free slots.";
        AbandonedFree = "abandoned-free", "capacity",
            "The slot of a handler that does not end is given to another run.";
        NeverForgiven = "never-forgiven", "settle",
            "A worker that left a START unanswered gets no work any more.";
        RoomUntold = "room-untold", "capacity",
            "An owner that was told that a worker is full waits for its next announcement.";
        FirstByName = "first-by-name", "capacity",
            "A node goes to the first worker by name that has a free slot, not to the one with most.";
    }
    Machines "when" {
        WhenIgnored = "when-ignored", "vars",
            "A node starts although its condition does not hold.";
        WhenOfNothing = "when-of-nothing", "vars",
            "A condition is judged without what functions have made of the vars.";
    }
    Machines "functions" {
        VarsUnstored = "vars-unstored", "vars",
            "A function's node ends in a commit without the vars that it made.";
        StartVarsLost = "start-vars-lost", "vars",
            "A START carries no vars once a function has changed them.";
        IncrTwice = "incr-twice", "vars",
            "A number is increased twice by one function.";
        SetPartly = "set-partly", "vars",
            "A change that cannot be made is left out, and the others are made.";
        UnsetUnpruned = "unset-unpruned", "vars",
            "Parents that an unset emptied stay.";
        MeanIsSum = "mean-is-sum", "vars",
            "The mean of a metric is its sum.";
        FunctionFailureLost = "function-failure-lost", "vars",
            "A function that failed counts as done.";
        MergeIsSet = "merge-is-set", "vars",
            "A merge does not replace values that are in the way of its objects.";
        MergeCountsLast = "merge-counts-last", "vars",
            "A merge of nodes counts the batches of the last one only.";
        UserFunctionUnknown = "user-function-unknown", "vars",
            "A function that a user registered is not found.";
        SensitiveTaken = "sensitive-taken", "vars",
            "A value that a detector calls sensitive is put into the vars.";
        UserDetectorsIgnored = "user-detectors-ignored", "vars",
            "A detector that a user registered flags nothing.";
        LimitOfVarsIgnored = "limit-of-vars-ignored", "vars",
            "Changes are made although they are beyond a limit of the vars.";
    }
    Machines "requests" {
        WaitAtOnce = "wait-at-once", "settle",
            "Who waits for a task is answered although it is not settled.";
        StoreUnasked = "store-unasked", "no_lost_task",
            "A task that is not in memory counts as unknown; the store is not asked.";
        OtherGraphTaken = "other-graph-taken", "dedup_bounded",
            "Another graph under the id of a task is taken for the same submission.";
        SettledEarly = "settled-early", "settle",
            "A task is settled while runs of it are still ending.";
    }
    Machines "blame" {
        NobodyBlamed = "nobody-blamed", "settle",
            "A commit that the store refuses is made again for ever; nothing is set aside.";
        DeadLetterStops = "dead-letter-stops", "settle",
            "An entry that does not decode stops its stream.";
    }
    Machines "peers" {
        PeersKept = "peers-kept", "at_rest",
            "A coordinator that fell silent keeps its share of the shards.";
        RenewedReleased = "renewed-released", "at_rest",
            "A shard's lease is given back while its renewal is under way, which takes it again.";
    }
    Machines "rerun" {
        KeptBelow = "kept-below", "rerun",
            "A rerun keeps finished nodes although a node above them runs again.";
        RerunOfLive = "rerun-of-live", "rerun",
            "A task that has not ended is run again.";
        KeptUnread = "kept-unread", "settle",
            "A reader looks for the batches of a kept node in its own task.";
        RerunVarsAsEnded = "rerun-vars-as-ended", "vars",
            "A rerun begins with the vars as they ended, with what the nodes that run again did to them.";
        KeptVarsLost = "kept-vars-lost", "vars",
            "A rerun forgets what kept functions did to the vars.";
    }
    Machines "sweep" {
        SweptEarly = "swept-early", "retention",
            "Retention is taken for half as long as it is.";
        PointedSwept = "pointed-swept", "retention",
            "A task is swept although a rerun points to it.";
        NoTombstone = "no-tombstone", "retention",
            "A swept task leaves no tombstone.";
        TaskBeforeNodes = "task-before-nodes", "retention",
            "A sweep takes the task away before its nodes.";
    }
    Processes "calls" {
        TimeoutUnanswered = "timeout-unanswered", "settle",
            "A call that takes too long is never answered to the machine.";
        AppendsUnordered = "appends-unordered", "effect_once",
            "Appends overtake each other on their way to the transport.";
    }
    Processes "drivers" {
        TimersIgnored = "timers-ignored", "settle",
            "A worker's driver sleeps without looking at the machine's next deadline.";
        StopLost = "stop-lost", "stops",
            "A driver does not see a stop that came while it was busy.";
        OldAnswers = "old-answers", "single_owner",
            "After a machine's panic the new one gets the answers to the old one's calls.";
        CancelUnraised = "cancel-unraised", "cancel_seen",
            "A cancel is known to the machine, but never told to the handler.";
        AbortLost = "abort-lost", "cancel_final",
            "A handler is not dropped when its time is up.";
        DeadlineNow = "deadline-now", "cancel_final",
            "A handler that is told to end is told that its time is up.";
        NonceKept = "nonce-kept", "single_owner",
            "A worker that starts anew says that it is the process that was there before.";
        ReasonUnsaid = "reason-unsaid", "cancel_seen",
            "A handler is told that a user asked for its end, whatever the reason.";
    }
    Processes "runs" {
        PanicUnanswered = "panic-unanswered", "settle",
            "A panic of a handler ends its step without an answer to the machine.";
        ClassifyUnanswered = "classify-unanswered", "settle",
            "A handler that panics as it names its error leaves its step without an answer.";
        BatchStale = "batch-stale", "effect_once",
            "A batch that was drawn and skipped is handed over under the name of the next one.";
        LastWrong = "last-wrong", "settle",
            "A source of unknown length counts as at its end after each batch.";
        BatchCheckpointLost = "batch-checkpoint-lost", "resume_point",
            "A batch does not get the checkpoint that was saved in it.";
        PermanentUnsaid = "permanent-unsaid", "as_reported",
            "A permanent error of a handler is told to the machine as a transient one.";
        RetryAfterUnsaid = "retry-after-unsaid", "as_reported",
            "The wait that a handler asks for with its error is lost.";
        ClassUnused = "class-unused", "as_reported",
            "What a handler says of its own errors is not asked.";
        StateRenewed = "state-renewed", "results",
            "Each batch begins with a new state of its run.";
        ProposalUnsaid = "proposal-unsaid", "effect_once",
            "The machine does not hear of an input adapter that a handler proposes.";
        MetricsLost = "metrics-lost", "results",
            "The metrics of a batch are lost on their way to the machine.";
        WrittenLost = "written-lost", "effect_once",
            "An artifact that a handler writes during its batch is lost.";
        TotalsUnset = "totals-unset", "results",
            "A handler finalizes without the totals of its node.";
        ResultLost = "result-lost", "results",
            "What a handler's finalize returns is lost on its way to the machine.";
        CleanupSkipped = "cleanup-skipped", "hooks",
            "A handler's cleanup is not run.";
        HooksSkipped = "hooks-skipped", "hooks",
            "What a handler asked to be run at its end is not run.";
        HooksInOrder = "hooks-in-order", "hooks",
            "What a handler asked to be run at its end is run oldest first.";
        ClosedUnsaid = "closed-unsaid", "capacity",
            "A run that is closed does not say so, and keeps its slot.";
        MailboxOfOne = "mailbox-of-one", "hooks",
            "A command for a run is dropped while another one waits.";
    }
    Processes "context" {
        CancelCleared = "cancel-cleared", "cancel_seen",
            "A batch that begins clears the cancel that came just before it.";
        WakesOne = "wakes-one", "cancel_seen",
            "Only one of those who wait for a cancel hears of it.";
        SleepsOn = "sleeps-on", "cancel_seen",
            "A handler that sleeps is not woken by a cancel.";
        KeyPerGrant = "key-per-grant", "results",
            "The idempotency key of a batch is another one in each run.";
        CheckpointAckedEarly = "checkpoint-acked-early", "resume_point",
            "A checkpoint is acknowledged before the store has it.";
        CheckpointAcksMixed = "checkpoint-acks-mixed", "resume_point",
            "The acknowledgement of one checkpoint is taken for that of a later one.";
    }
    Processes "client" {
        RepeatRenamed = "repeat-renamed", "no_lost_task",
            "A request that is repeated is one about another task.";
        ReplyMisdelivered = "reply-misdelivered", "settle",
            "A reply is given to whoever has waited longest.";
        RepliesOfOthers = "replies-of-others", "no_lost_task",
            "A client takes replies that are for another client.";
        AsksOnce = "asks-once", "settle",
            "A request that gets no answer is not repeated.";
        NoAnswerIsOk = "no-answer-is-ok", "no_lost_task",
            "A request that nobody answered counts as carried out.";
        GapIsEnd = "gap-is-end", "settle",
            "A client whose place in its inbox is gone stays there.";
        KeyUnused = "key-unused", "dedup_bounded",
            "A submission with an idempotency key gets a new id.";
        UnreadIsAbsent = "unread-is-absent", "answered",
            "A task that the store cannot read just now counts as one that does not exist.";
        BatchesUnshown = "batches-unshown", "answered",
            "A node is shown without its batches.";
        ListSkips = "list-skips", "answered",
            "A page of tasks leaves out its last one.";
        RunsUnshown = "runs-unshown", "answered",
            "A worker is shown without its newest run.";
        PageSkipped = "page-skipped", "answered",
            "Each page of a node's artifacts but the first leaves out its first one.";
        WhyUnlisted = "why-unlisted", "answered",
            "Nodes that are ready are no part of why their task waits.";
    }
    Processes "engine" {
        CoordinatorFirst = "coordinator-first", "stops",
            "An engine that is stopped stops its coordinator before its workers.";
        DeploymentProposed = "deployment-proposed", "settle",
            "An engine goes by its own number of shards, not by the deployment's.";
        AllDead = "all-dead", "single_owner",
            "An engine that shares its deployment takes every other process for dead.";
        SyncUnasked = "sync-unasked", "no_lost_task",
            "An engine takes what its store has applied for synced.";
    }
    Processes "clock" {
        DeadlineFar = "deadline-far", "settle",
            "A deadline is taken in the wrong unit: a thousand times as far.";
        WallForMono = "wall-for-mono", "settle",
            "Wall time is used where monotonic time is meant.";
    }
    Children "children" {
        GroupSpared = "group-spared", "children_end",
            "What a child leaves behind in its group outlives it.";
        TermSkipped = "term-skipped", "children_end",
            "A child is killed without having been asked to end.";
        KillUnsent = "kill-unsent", "children_end",
            "A child that ignores SIGTERM is never killed.";
        ChildKept = "child-kept", "children_end",
            "A run that is dropped leaves its children running.";
        StdinHeld = "stdin-held", "children_end",
            "Who waits for a child does not close its standard input.";
        FolderKept = "folder-kept", "children_end",
            "The temporary folder of a run that is dropped stays.";
        CancelUnsaid = "cancel-unsaid", "children_end",
            "A program gets no line about its cancel, only the signal.";
        StaleResult = "stale-result", "children_end",
            "A program's second result of a batch is taken for the next one's.";
        RefusalPassedOver = "refusal-passed-over", "children_end",
            "A program's batch counts although a checkpoint of it was refused.";
    }
}

#[cfg(feature = "planted-bugs")]
mod on;

#[cfg(feature = "planted-bugs")]
pub use on::{is_any, is_planted, plant, times_struck};

/// No bug is planted without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is_any() -> bool {
    false
}

/// No bug is planted without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
