/*
 * The gate's protocol, for Spin (scripts/model.sh). Each step that PostgreSQL makes atomic is one step here; everything
 * else interleaves. What is claimed: in maintenance nothing is active.
 *
 * With -DNO_WAIT a change of the mode does not wait for writers; with -DSNAPSHOT the gate trusts the mode that a
 * transaction's snapshot shows; with -DNO_RECOUNT the tasks are counted before the lock. Each of them breaks the claim,
 * and the check makes sure that the model finds it.
 */

#define WRITERS 2
#define TASKS 2 /* rows of each writer */

mtype = { running, waiting, maintenance };

mtype mode = running;  /* orchestrator_state.mode, as committed; the triggers are committed with it */
byte live = 0;         /* committed rows of task_runs that are pending or running */
byte row_exclusive = 0; /* transactions that have written to task_runs, and not ended */
bool share_row_exclusive = false; /* a change of the mode holds the table */
bool expired = false;  /* the wait's time to live has run out */

inline lock_for_write() {
  atomic { !share_row_exclusive -> row_exclusive++ }
}

inline lock_for_change() {
#ifdef NO_WAIT
  atomic { !share_row_exclusive -> share_row_exclusive = true }
#else
  atomic { !share_row_exclusive && row_exclusive == 0 -> share_row_exclusive = true }
#endif
}

/* A client: a transaction that inserts a task, at any isolation level. */
proctype Writer() {
  mtype snapshot;
  byte i = 0;
  do
  :: i < TASKS ->
    i++;
    /* Begins; its snapshot may grow old before it writes. */
    snapshot = mode;
    lock_for_write();
    /* Which triggers there are is read after the lock was had: invalidations are taken in then. */
    atomic {
      if
#ifdef SNAPSHOT
      :: snapshot != running -> row_exclusive-- /* refused: PW101 */
      :: else -> skip
#else
      :: mode == maintenance -> row_exclusive--
      :: mode == waiting && !expired -> row_exclusive--
      :: else -> goto inserted
#endif
      fi
    }
#ifdef SNAPSHOT
    if
    :: snapshot != running -> goto next
    :: else -> skip
    fi
#else
    goto next;
#endif
inserted:
    if
    :: atomic { live++; row_exclusive-- } /* commits */
    :: row_exclusive--                      /* rolls back, or was killed */
    fi;
next: skip
  :: i == TASKS -> break
  od
}

/* A worker ends tasks; one that a pipeline run was under way with may queue the next one in the same transaction. */
proctype Worker() {
  bool follows = true;
end:
  do
  :: live > 0 ->
    lock_for_write();
    if
    :: atomic { live > 0 -> live--; row_exclusive-- }
    :: atomic { follows && live > 0 && mode != maintenance -> follows = false; row_exclusive-- }
    :: row_exclusive-- /* killed: nothing happened */
    fi
  od
}

/* A command: request, look, enter or exit; the row of orchestrator_state is locked along with the table. */
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
       share_row_exclusive = false
     }
  :: lock_for_change();
     atomic { mode = running; share_row_exclusive = false }
  :: lock_for_change();
     share_row_exclusive = false /* killed: rolled back */
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

ltl gate { [] (mode == maintenance -> live == 0) }
