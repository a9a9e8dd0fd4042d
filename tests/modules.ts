// Every module that only tests use, so that the set-up fetches them.
import "@std/assert";
import "node-forge";
