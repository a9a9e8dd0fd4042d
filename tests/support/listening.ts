/** Waiting for what was started to listen. */

/** Whether somebody takes connections on a port of 127.0.0.1 within a time, in milliseconds. */
export async function listens(port: number, limitMs: number): Promise<boolean> {
  for (let waited = 0; waited < limitMs; waited += 50) {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return true;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return false;
}
