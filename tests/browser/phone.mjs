// A JavaScript SIP phone (JsSIP) in headless Chromium. It says what it does as lines of JSON on standard output:
//
//   {"event":"refused", …}    a page of somebody else's, and a browser that does not know the authority, got no WebSocket
//   {"event":"registered"}    signed in over wss; a line on standard input lets it go on
//   {"event":"sent"}          the answer to its MESSAGE
//   {"event":"received"}      a MESSAGE came in
//   {"event":"done"}          signed off
//
// What to do comes as JSON in the first argument: wss, user, password, domain, peer, text, page, foreign, trusting, doubting.
import { chromium } from "playwright-core";
import { build } from "esbuild";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const plan = JSON.parse(process.argv[2]);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const bundle = await build({
  stdin: { contents: `export { default as JsSIP } from "jssip";`, resolveDir: fileURLToPath(new URL(".", import.meta.url)) },
  bundle: true, write: false, format: "iife", globalName: "phone", platform: "browser", logLevel: "silent",
});

// Chromium verifies the edge's certificate by the authorities below its HOME and by no others.
async function browser(home) {
  mkdirSync(home, { recursive: true });
  return chromium.launchPersistentContext(`${home}/profile`, {
    executablePath: plan.chromium, headless: true, env: { ...process.env, HOME: home },
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

// The page itself comes from here: only its origin matters.
async function open(context, origin) {
  const page = await context.newPage();
  await page.route(`${origin}/**`, route => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>phone</title>" }));
  await page.goto(`${origin}/`);
  return page;
}

const knock = (page, wss) => page.evaluate(url => new Promise(answer => {
  const socket = new WebSocket(url, "sip");
  socket.onopen = () => { answer("opened"); socket.close(); };
  socket.onclose = event => answer(`closed ${event.code}`);
}), wss);

const doubting = await browser(plan.doubting);
const unknown = await knock(await open(doubting, plan.page), plan.wss);
await doubting.close();

const trusting = await browser(plan.trusting);
say("refused", { unknown, foreign: await knock(await open(trusting, plan.foreign), plan.wss), version: trusting.browser()?.version() });

const page = await open(trusting, plan.page);
await page.exposeFunction("say", say);
await page.exposeFunction("proceed", () => new Promise(done => process.stdin.once("data", done)));
await page.addScriptTag({ content: bundle.outputFiles[0].text });
await page.evaluate(async plan => {
  const { JsSIP } = phone;
  const ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(plan.wss)],
    uri: `sip:${plan.user}@${plan.domain}`, password: plan.password, register_expires: 300, session_timers: false,
  });
  const once = event => new Promise((done, fail) => {
    ua.once(event, done);
    setTimeout(() => fail(new Error(`no ${event} within 30 s`)), 30_000);
  });
  ua.on("registrationFailed", event => say("failed", { cause: event.cause, status: event.response?.status_code }));
  ua.on("disconnected", event => say("disconnected", { code: event.code, reason: event.reason }));
  const text = new Promise(done => ua.on("newMessage", ({ originator, message, request }) => {
    if (originator !== "remote") return;
    message.accept();
    say("received", { from: request.from.uri.toString(), text: request.body, via: request.getHeader("Via") });
    done();
  }));
  const registered = once("registered");
  ua.start();
  const { response } = await registered;
  say("registered", { status: response.status_code });
  await proceed();
  await new Promise((done, fail) => ua.sendMessage(plan.peer, plan.text, { eventHandlers: {
    succeeded: ({ response }) => { say("sent", { status: response.status_code }); done(); },
    failed: ({ cause, response }) => fail(new Error(`MESSAGE: ${cause} ${response?.status_code}`)),
  } }));
  await text;
  const unregistered = once("unregistered");
  ua.unregister();
  await unregistered;
  ua.stop();
}, plan);
await trusting.close();
say("done");
process.exit(0);
