/*
 * The gate's protocol, for Spin (scripts/model.sh). Each step that PostgreSQL makes atomic is one step here; everything
 * else interleaves. What is claimed: in maintenance nothing is active; and what follows from accepted work is not lost.
 *
 * The client's protocol has two steps: a task ends in one transaction, and what follows from it, the next step of its
 * pipeline run or its retry, is queued by a later one. There is no time in the model, so nothing of the claim rests on how
 * long a drain settles: a follow-up may come at any moment, and once refused it is not repeated.
 *
 * With -DNO_WAIT a change of the mode does not wait for writers; with -DSNAPSHOT the gate trusts the mode that a
 * transaction's snapshot shows; with -DNO_RECOUNT the tasks are counted before the lock; with -DNO_HOLD a follow-up is
 * refused during maintenance, as it was once. Each of them breaks a claim, and the check makes sure that the model finds
 * it.
 */

#define WRITERS 3
#define TASKS 1 /* rows of each writer */

mtype = { running, waiting, maintenance };

mtype mode = running;  /* orchestrator_state.mode, as committed */
mtype gate = running;  /* the triggers on task_runs, as committed: those of this mode; running has none */
byte live = 0;         /* committed rows of task_runs that are pending or running */
byte row_exclusive = 0; /* transactions that have written to task_runs, and not ended */
bool share_row_exclusive = false; /* a change of the mode holds the table */
bool state_locked = false; /* a change of the mode holds the row of orchestrator_state */
bool expired = false;  /* the wait's time to live has run out */
byte about = 0;        /* tasks that have ended and will be followed */
byte held = 0;         /* follow-ups that came during maintenance */
bool lost = false;     /* a follow-up was refused */

inline lock_for_write() {
  atomic { !share_row_exclusive -> row_exclusive++ }
}

inline lock_for_change() {
#ifdef NO_WAIT
  atomic { !share_row_exclusive -> share_row_exclusive = true };
#else
  atomic { !share_row_exclusive && row_exclusive == 0 -> share_row_exclusive = true };
#endif
  atomic { !state_locked -> state_locked = true }
}

/* A client: a transaction that inserts a task, at any isolation level. */
proctype Writer() {
  mtype snapshot, trigger, seen;
  byte i = 0;
  do
  :: i < TASKS ->
    i++;
    /* Begins; its snapshot may grow old before it writes. */
    snapshot = mode;
    lock_for_write();
    /* Which triggers there are is read after the lock was had: invalidations are taken in then. */
    trigger = gate;
    if
    :: trigger == running -> skip /* none */
    :: else ->
      /* The function lets in where the gate was opened and its triggers were left, by the newest state alone. */
#ifdef SNAPSHOT
      seen = snapshot;
#else
      seen = mode;
#endif
      if
      :: seen == running -> skip
      :: seen == waiting && expired && trigger == waiting -> skip
      :: else -> row_exclusive--; goto next /* refused: PW101 */
      fi
    fi;
    if
    :: atomic { live++; row_exclusive-- } /* commits */
    :: row_exclusive--                      /* rolls back, or was killed */
    fi;
next: skip
  :: i == TASKS -> break
  od
}

/* A worker ends tasks; one of them is followed by another, which is queued by a later transaction. */
proctype Worker() {
  bool follows = true;
  mtype trigger;
end:
  do
  :: live > 0 ->
    lock_for_write();
    if
    :: atomic { live > 0 -> live--; row_exclusive-- }
    :: atomic { live > 0 && follows -> live--; follows = false; about++; row_exclusive-- }
    :: row_exclusive-- /* killed: nothing happened */
    fi
  :: about > 0 ->
    lock_for_write();
    trigger = gate;
    if
    :: trigger == maintenance && mode == maintenance ->
#ifdef NO_HOLD
      atomic { about--; lost = true; row_exclusive-- }
#else
      atomic { about--; held++; row_exclusive-- }
#endif
    :: else -> atomic { about--; live++; row_exclusive-- }
    fi
  od
}

/* A command. Request, look and enter lock the table, and then the row; an exit locks the row alone. */
proctype Operator() {
  byte counted;
end:
  do
  :: counted = live;
     lock_for_change();
#ifndef NO_RECOUNT
     counted = live;
#endif
     /* Commits: the mode and the triggers at once. */
     atomic {
       if
       :: mode == running && counted == 0 -> mode = maintenance
       :: mode == running && counted > 0 -> mode = waiting; expired = false
       :: mode == waiting && expired -> mode = running
       :: mode == waiting && !expired && counted == 0 -> mode = maintenance
       :: mode == waiting && !expired -> skip
       :: mode == maintenance -> skip
       fi;
       gate = mode;
       state_locked = false;
       share_row_exclusive = false
     }
  :: atomic { !state_locked -> state_locked = true };
     atomic {
       mode = running;
       if
       :: row_exclusive == 0 && !share_row_exclusive -> gate = running
       :: skip /* others hold the table: the triggers are left */
       fi;
       if
       :: !share_row_exclusive -> live = live + held; held = 0
       :: skip /* others hold the table: what was held stays so */
       fi;
       state_locked = false
     }
  :: lock_for_change();
     /* A look that finds the mode running, and triggers or held tasks left: it tidies up. */
     atomic {
       if
       :: mode == running -> gate = running; live = live + held; held = 0
       :: else -> skip
       fi;
       state_locked = false;
       share_row_exclusive = false
     }
  :: lock_for_change();
     atomic { state_locked = false; share_row_exclusive = false } /* killed: rolled back */
  od
}

proctype Clock() {
end:
  do
  :: atomic { mode == waiting && !expired -> expired = true }
  od
}

init {
  byte i = 0;
  atomic {
    do
    :: i < WRITERS -> run Writer(); i++
    :: else -> break
    od;
    run Worker();
    run Operator();
    run Operator();
    run Clock()
  }
}

ltl gate_holds { [] ((mode == maintenance -> live == 0) && !lost) }
