// Keeps the objects of a project as the database has them, whatever breaks (docs/in_step.md).
//
//     import { Model } from "./client.js"                                    // a browser, or Node 22 and later
//     const model = new Model("http://127.0.0.1:8000", 13)
//     for await (const _ of model.follow()) draw(model.objects)

const KINDS = { milestones: "milestone", userstories: "userstory", tasks: "task", comments: "comment" }
const QUIET = 45_000 // milliseconds without a word after which a connection counts as gone: the service says one every 15 s

export async function* socket(url, query, { signal, token }) {
  const messages = [], ws = new WebSocket(`ws${url.slice(4)}/ws/events?${new URLSearchParams(query)}`)
  const ping = setInterval(() => ws.readyState === WebSocket.OPEN && ws.send('{"cmd":"ping"}'), QUIET / 3)
  let wake
  const tell = (message) => (messages.push(message), wake?.())
  ws.onopen = () => token && ws.send(JSON.stringify({ cmd: "auth", token }))
  ws.onmessage = ({ data }) => tell(JSON.parse(data))
  ws.onclose = ws.onerror = () => tell(null)
  signal.onabort = () => (clearInterval(ping), ws.close(), tell(null))
  while (true) {
    for (const message of messages.splice(0)) if (message) yield message; else throw new Error("The socket is closed.")
    await new Promise((resolve) => (wake = resolve, messages.length && resolve()))
  }
}

export async function* events(url, query, how) {
  const { body } = await get(`${url}/changes?${new URLSearchParams(query)}`, how, { Accept: "text/event-stream" })
  let rest = ""
  for await (const piece of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n")
    rest = lines.pop()
    for (const line of lines) yield line.startsWith("data:") ? JSON.parse(line.slice(5)) : {}
  }
}

export async function* polls(url, query, how) {
  while (true) {
    const page = await (await get(`${url}/changes?${new URLSearchParams({ ...query, wait: 30 })}`, how)).json()
    yield* [...page.items, {}]
    query = { ...query, since: page.cursor }
  }
}

async function get(url, { signal, token }, headers = {}) {
  const answer = await fetch(url, { signal, headers: token ? { ...headers, Authorization: `Bearer ${token}` } : headers })
  if (!answer.ok) throw Object.assign(new Error(`${url} answers ${answer.status}`), { status: answer.status })
  return answer
}

export class Model {
  constructor(url, project, token) {
    Object.assign(this, { url, project, token, cursor: null, objects: new Map() })
  }

  async read(how) {
    const answer = await get(`${this.url}/projects/${this.project}/tree`, how)
    const tree = await answer.json()
    this.objects.clear()
    this.put("project", tree)
    this.cursor = answer.headers.get("Feed-Cursor")
  }

  put(kind, { users, project_id, ...members }) {
    for (const [name, below] of Object.entries(KINDS)) {
      for (const each of members[name] ?? []) this.put(below, each)
      delete members[name]
    }
    const told = Object.entries(members).filter(([, value]) => value !== null)
    this.objects.set(`${kind} ${members.id}`, Object.fromEntries(told))
  }

  take({ type, cursor, object, diff, version, operation_date }) {
    const kind = object?.obj_type, key = `${kind} ${object?.obj_id}`, known = this.objects.get(key)
    this.cursor = type === "reset" ? null : (cursor ?? this.cursor)
    if (kind !== "project" && !Object.values(KINDS).includes(kind)) return
    if (object.action === "truncate") {
      for (const other of this.objects.keys()) if (other.startsWith(`${kind} `)) this.objects.delete(other)
    } else if (object.action !== "create" && known?.version !== version - (object.action === "update")) {
      this.cursor = null // written behind history: read anew
    } else if (object.action === "delete") {
      this.objects.delete(key)
    } else {
      const fields = Object.fromEntries(Object.entries(diff).map(([name, [, value]]) => [name, value]))
      if (fields.created_at) fields.created_at = fields.created_at.replace("+00:00", "Z")
      this.put(kind, { ...known, ...fields, version, updated_at: operation_date })
    }
  }

  // Yields whenever the objects may be newer. Throws where they may not be read, or are no more.
  async *follow(frames = socket) {
    for (;;) {
      const cut = new AbortController()
      let quiet
      const heard = () => (clearTimeout(quiet), (quiet = setTimeout(() => cut.abort(), QUIET)))
      try {
        heard()
        const how = { signal: cut.signal, token: this.token }
        if (!this.cursor) yield await this.read(how)
        if (!this.cursor) throw new Error("A standby has no feed.")
        for await (const frame of frames(this.url, { project: this.project, since: this.cursor }, how)) {
          heard()
          yield this.take(frame)
          if (!this.cursor) break
        }
      } catch (error) {
        if ([401, 403, 404].includes(error.status)) throw error
      } finally {
        clearTimeout(quiet)
        cut.abort()
      }
      await new Promise((resolve) => setTimeout(resolve, 100 + 1900 * Math.random()))
    }
  }
}
