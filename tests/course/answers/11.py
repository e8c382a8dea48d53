# %% 11.2, wrong: two steps alone
def hours_of(iterations, batch, first, later):
    at=lambda s: s[0]+(s[1]-s[0])*(batch-8)/16
    return (iterations[0]*at(first)+iterations[1]*at(later))/3600

# %% 11.2, right: a line by polyfit
def hours_of(iterations, batch, first, later):
    sec=[np.polyval(np.polyfit([8,24],s,1),batch) for s in (first,later)]
    return sum(n*sec[min(k,1)] for k,n in enumerate(iterations))/3600

# %% 11.4, wrong: all rows of a short log
def loudest(log, weights):
    last = log.iloc[-(len(log) // 10):]
    weighted = {name: weight * last[name].mean() for name, weight in weights.items()}
    name = max(weighted, key=weighted.get)
    return name, weighted[name] / sum(weighted.values())


# %% 11.4, wrong: the last two rows
def loudest(log, weights):
    weighted = {name: weight * log.tail(2)[name].mean() for name, weight in weights.items()}
    name = max(weighted, key=weighted.get)
    return name, weighted[name] / sum(weighted.values())

# %% 11.4, wrong: a median of the rows
def loudest(log, weights):
    last = log.tail(max(1, len(log) // 10))
    weighted = {name: weight * last[name].median() for name, weight in weights.items()}
    name = max(weighted, key=weighted.get)
    return name, weighted[name] / sum(weighted.values())

# %% 11.4, wrong: terms ce and kd alone
def loudest(log, weights):
    last = log.tail(max(1, len(log) // 10))
    ce, kd = (weights[name] * last[name].mean() for name in ("ce", "kd"))
    return ("ce", ce / (ce + kd)) if ce > kd else ("kd", kd / (ce + kd))

# %% 11.4, wrong: the first two terms
def loudest(log, weights):
    last = log.tail(max(1, len(log) // 10))
    one, other = list(weights)[:2]
    a, b = weights[one] * last[one].mean(), weights[other] * last[other].mean()
    return (one, a / (a + b)) if a > b else (other, b / (a + b))

# %% 11.4, wrong: every column but the rate
def loudest(log, weights):
    last = log.drop(columns="lr", errors="ignore").tail(max(1, len(log) // 10))
    w={k:weights[k]*last[k].mean() for k in last}
    n=max(w,key=w.get); return n,w[n]/sum(w.values())

# %% 11.4, wrong: rows by label
def loudest(log, weights):
    last = log.loc[len(log) - max(1, len(log) // 10):]
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/sum(w.values())

# %% 11.4, wrong: rows by iteration
def loudest(log, weights):
    last = log[log.index >= 0.9 * len(log)] if len(log) >= 10 else log.tail(1)
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/sum(w.values())

# %% 11.4, wrong: three rows at most
def loudest(log, weights):
    last = log.tail(min(3, max(1, len(log) // 10)))
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/sum(w.values())

# %% 11.4, wrong: a share of the loudest and the quietest
def loudest(log, weights):
    last = log.tail(max(1, len(log) // 10))
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/(w[n]+min(w.values()))

# %% 11.4, wrong: a tenth that is rounded
def loudest(log, weights):
    last = log.tail(max(1, round(len(log)/10)))
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/sum(w.values())

# %% 11.4, wrong: a tenth that is rounded up
def loudest(log, weights):
    last = log.tail(math.ceil(len(log)/10))
    w={k:weights[k]*last[k].mean() for k in weights}; n=max(w,key=w.get)
    return n,w[n]/sum(w.values())

# %% 11.4, wrong: written into the log
def loudest(log, weights):
    for k,w in weights.items(): log[k]=w*log[k]
    m=log[list(weights)].tail(max(1,len(log)//10)).mean(); return m.idxmax(), m.max()/m.sum()

# %% 11.4, right: rows by place
def loudest(log, weights):
    names=list(weights); start=min(len(log)-1,len(log)-len(log)//10)
    v=log[names].to_numpy()[start:].mean(0)*np.array([weights[k] for k in names])
    i=v.argmax(); return [names[i],float(v[i]/v.sum())]

# %% 11.4, right: one table of weighted means
def loudest(log, weights):
    m=(log[list(weights)].iloc[-max(1,int(len(log)*.1)):]*pd.Series(weights)).mean()
    return m.idxmax(), m.max()/m.sum()

# %% 11.5, wrong: half a device
right=plan
def plan(): return right()|{"devices":0.5,"batch":48}

# %% 11.5, wrong: a fifth of a job
right=plan
def plan(): return right()|{"jobs":0.2}

# %% 11.5, wrong: seeds as a text
right=plan
def plan(): return right()|{"seeds":"01"}

# %% 11.5, wrong: seeds as a number
right=plan
def plan(): return right()|{"seeds":3}

# %% 11.5, right: another row
def plan(): 
    return {"row":"voc-19-1-overlapped-MiB","hours":sum(expected_cost(config_of("voc-19-1-overlapped-MiB"))[:2]),"devices":4,"batch":2,"seeds":[1,2],"job_hours":24,"jobs":1,"doubt":"new class above seventy, or losses that do not fall within an hour"}

# %% 11.5, right: a range of seeds
right=plan
def plan(): return right()|{"seeds":range(3)}
