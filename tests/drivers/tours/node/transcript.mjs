// What the tours in JavaScript share: each client writes down what it saw in a schema of its
// own, and prints it at the end; see ../transcript.py.

export const address = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
};

class Transcript {
  constructor(number) {
    this.number = number;
    this.schema = `${process.env.TOUR_SCHEMA}_${number}`;
    this.steps = [];
  }

  say(step, ...seen) {
    const text = seen.map((one) => (typeof one === "string" ? one : show(one))).join(" ");
    this.steps.push(`${step}: ${text.replaceAll(this.schema, "SCHEMA")}`);
  }

  // `promise` must be rejected; how that reads goes into the transcript.
  async fails(step, promise) {
    try {
      await promise;
    } catch (error) {
      return this.say(step, raised(error));
    }
    this.say(step, "was not refused");
  }
}

function show(value) {
  return (
    JSON.stringify(value, (_, one) => (typeof one === "bigint" ? `${one}n` : one)) ?? "undefined"
  );
}

export function raised(error) {
  const { severity, code, detail, hint, position, constraint } = error;
  return show([error.message, severity, code, detail, hint, position, constraint]);
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// One at a time: for the steps that take two connections of one client.
let last = Promise.resolve();
export function alone(work) {
  const mine = last.then(work);
  last = mine.catch(() => {});
  return mine;
}

export async function run(tour) {
  const clients = Array.from(
    { length: Number(process.env.TOUR_CLIENTS) },
    (_, n) => new Transcript(n),
  );
  await Promise.all(
    clients.map(async (seen) => {
      try {
        await tour(seen);
      } catch (error) {
        console.error(error);
        seen.say("ended by", raised(error));
      }
    }),
  );
  process.stdout.write(JSON.stringify(clients.map((one) => one.steps)));
}
