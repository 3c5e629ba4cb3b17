import asyncio
import sys

import socketio

token, job_id = sys.argv[1:]
client = socketio.AsyncClient()  # handles events in order, unlike the threads of socketio.Client
seen = 0  # the number of the last line that came


@client.event
async def connect():
    await client.emit("subscribe", {"job_id": job_id, "after_seq": seen}, callback=subscribed)


async def subscribed(answer):
    if not answer["ok"]:
        print(answer["problem"]["detail"])
        await client.disconnect()


@client.event
def log(event):
    global seen
    seen = event["first_seq"] + len(event["lines"]) - 1
    print(*event["lines"], sep="\n")


@client.event
async def complete(event):
    print(event["status"])
    await client.disconnect()


async def main():
    await client.connect("http://127.0.0.1:8000", auth={"token": token}, socketio_path="/socket.io")
    await client.wait()


asyncio.run(main())
