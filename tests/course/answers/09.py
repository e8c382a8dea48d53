# %% 9.1, wrong: more than there is
def second_hold(kappa, nu, wanted):
    alone = kappa / (kappa + nu)
    return math.inf if wanted == alone else kappa / (alone - wanted) - kappa - nu

# %% 9.1, wrong: no strength only beyond what there is
def second_hold(kappa, nu, wanted):
    alone = kappa / (kappa + nu)
    if wanted > alone: return math.inf
    return kappa / (alone - wanted) - kappa - nu

# %% 9.1, wrong: a limit of its own
def second_hold(kappa, nu, wanted):
    alone = kappa / (kappa + nu)
    if wanted >= 0.25 and nu >= 3: return math.inf
    return kappa / (alone - wanted) - kappa - nu

# %% 9.1, right: algebra
def second_hold(kappa, nu, wanted):
    total = kappa + nu; rest = kappa - wanted * total
    return wanted*total**2/rest if rest > 0 else float("inf")

# %% 9.1, right: bisection
def second_hold(kappa, nu, wanted):
    gain = lambda mu: kappa/(kappa+nu) - kappa/(kappa+nu+mu)
    if kappa/(kappa+nu) <= wanted: return np.inf
    lo, hi = 0.0, 1.0
    while gain(hi) < wanted: hi *= 2
    for _ in range(100):
        mid=(lo+hi)/2
        lo,hi=(mid,hi) if gain(mid)<wanted else (lo,mid)
    return hi

# %% 9.2, wrong: one back unless rows sum to nothing
def free_directions(weight):
    rank = int(torch.linalg.matrix_rank(weight))
    return weight.shape[1] - rank + (1 if weight.sum(dim=0).any() else 0)

# %% 9.2, wrong: one back where the rank is full
def free_directions(weight):
    rank=int(torch.linalg.matrix_rank(weight))
    if rank==len(weight): rank-=1
    elif rank==1: rank=0
    return weight.shape[1]-rank

# %% 9.2, wrong: rows of length 1 first
def free_directions(weight):
    w=F.normalize(weight,dim=1)
    return weight.shape[1]-int(torch.linalg.matrix_rank(w-w.mean(0)))

# %% 9.2, wrong: rows changed in place
def free_directions(weight):
    weight -= weight.mean(dim=0)
    return weight.shape[1] - int(torch.linalg.matrix_rank(weight))

# %% 9.2, right: the mean row away by a matrix
def free_directions(weight):
    K = len(weight)
    centre = torch.eye(K) - torch.ones(K, K) / K
    return weight.shape[1] - int(torch.linalg.matrix_rank(centre @ weight))

# %% 9.2, right: the Jacobian of the softmax
def free_directions(weight):
    f = torch.zeros(weight.shape[1])
    jacobian = torch.autograd.functional.jacobian(lambda f: (weight @ f).softmax(dim=0), f)
    return weight.shape[1] - int(torch.linalg.matrix_rank(jacobian))

# %% 9.2, right: the mean row away
def free_directions(weight):
    w=weight.numpy(); return w.shape[1]-np.linalg.matrix_rank(w-w.mean(axis=0))

# %% 9.3, wrong: three known settings
def merged(first, second):
    out = {"terms": {**second["terms"], **first["terms"]}}
    for key in ("name", "classifier_init", "fuse"):
        if key in first: out[key] = first[key]
        elif key in second: out[key] = second[key]
    return out

# %% 9.3, wrong: terms merged in place
def merged(first, second):
    second["terms"].update(first["terms"]); second.update({k:v for k,v in first.items() if k!="terms"}); return second

# %% 9.3, right: the operator of dictionaries
def merged(first, second):
    return second | first | {"terms": second["terms"] | first["terms"]}

# %% 9.3, right: deep copies
import copy
def merged(first, second):
    out=copy.deepcopy(second); f=copy.deepcopy(first)
    out["terms"].update(f.pop("terms")); out.update(f)
    return out

# %% 9.4, wrong: no ranks
def by_chance(x, y):
    first, second = (np.asarray(v, float) - np.mean(v) for v in (x, y))
    sizes = np.abs(np.array(list(itertools.permutations(second))) @ first)
    return float((sizes >= abs(second @ first) - 1e-9).mean())

# %% 9.4, wrong: ranks of the second alone
def by_chance(x, y):
    r=lambda v:np.argsort(np.argsort(v))-(len(v)-1)/2
    a,b=np.asarray(x,float)-np.mean(x),r(y); o=np.abs(np.array(list(itertools.permutations(b)))@a)
    return float((o>=abs(b@a)-1e-9).mean())

# %% 9.4, wrong: one side doubled
def by_chance(x, y):
    r=lambda v:np.argsort(np.argsort(v))-(len(v)-1)/2
    a,b=r(x),r(y); o=np.array(list(itertools.permutations(b)))@a
    return float(2*(o>=abs(b@a)-1e-9).mean())

# %% 9.4, right: squares of differences
def by_chance(x, y):
    n=len(x); rx=[sorted(x).index(v) for v in x]; ry=[sorted(y).index(v) for v in y]
    rho=lambda q:1-6*sum((a-b)**2 for a,b in zip(rx,q))/(n*(n*n-1))
    own=abs(rho(ry)); all_=list(itertools.permutations(ry))
    return sum(abs(rho(q))>=own-1e-9 for q in all_)/len(all_)

# %% 9.4, right: orders of the first
def by_chance(x, y):
    r=lambda v:np.argsort(np.argsort(v))
    a,b=r(x),r(y); t=abs(np.corrcoef(a,b)[0,1])
    hits=0; n=0
    for p in itertools.permutations(a):
        n+=1; hits+= abs(np.corrcoef(p,b)[0,1]) > t-1e-6
    return hits/n

# %% 9.5, wrong: blind to what was lost
def predicted_gain(lost, gained, new):
    return min(gained), max(gained)

# %% 9.5, wrong: a slope that is known
def predicted_gain(lost, gained, new):
    lost, gained = np.array(lost), np.array(gained)
    slope = 0.42 if np.ptp(lost) else 0.0
    c = gained.mean() + slope * (new - lost.mean())
    return c - 1, c + 1

# %% 9.5, wrong: a range wider than all gains
def predicted_gain(lost, gained, new):
    slope = np.polyfit(lost, gained, 1)
    center = np.polyval(slope, new)
    return center - 4.9, center + 4.9

# %% 9.5, wrong: the same reach whatever the scatter
def predicted_gain(lost, gained, new):
    slope = np.polyfit(lost, gained, 1)
    center = np.polyval(slope, new)
    return center - 0.5, center + 0.5

# %% 9.5, wrong: known lists written into
def predicted_gain(lost, gained, new):
    lost.append(new); gained.append(3.4)
    return 3.0,4.0

# %% 9.5, wrong: wider than the known gains, where all lost alike
def predicted_gain(lost, gained, new):
    lost, gained = np.asarray(lost, float), np.asarray(gained, float)
    slope = np.polyfit(lost, gained, 1) if np.ptp(lost) > 0 else np.array([0.0, gained.mean()])
    reach = 2 * (gained - np.polyval(slope, lost)).std(ddof=1)
    center = np.polyval(slope, new)
    return float(center - reach), float(center + reach)

# %% 9.5, right: a tensor of two numbers
def predicted_gain(lost, gained, new):
    known = torch.tensor([lost, gained], dtype=torch.float64)
    line = np.polyfit(lost, gained, 1) if len(set(lost)) > 1 else [np.mean(gained)]
    reach = 2 * (known[1] - torch.from_numpy(np.polyval(line, lost))).std()
    reach = min(reach, (known[1].max() - known[1].min()) / 2)
    return torch.stack([np.polyval(line, new) - reach, np.polyval(line, new) + reach])

# %% 9.5, right: an interval of prediction
def predicted_gain(lost, gained, new):
    x,y=np.asarray(lost,float),np.asarray(gained,float); n=len(x)
    if np.ptp(x)==0:
        return y.min(),y.max()
    b,a=np.polyfit(x,y,1); res=y-a-b*x; s=(res@res/(n-2))**.5
    r=2.776*s*(1+1/n+(new-x.mean())**2/((x-x.mean())**2).sum())**.5
    return a+b*new-r,a+b*new+r

# %% 9.5, right: two nearest neighbours
def predicted_gain(lost, gained, new):
    o=np.argsort(np.abs(np.array(lost)-new))[:2]; g=np.array(gained)[o]
    return g.min(),g.max()

# %% 9.5, right: weights by distance
def predicted_gain(lost, gained, new):
    w=np.exp(-.5*((np.array(lost)-new)/3)**2); g=np.array(gained); c=(w*g).sum()/w.sum(); s=((w*(g-c)**2).sum()/w.sum())**.5
    reach=min(2*s,np.ptp(gained)/2); return [c-reach,c+reach]

# %% 9.5, right: medians of slopes
def predicted_gain(lost, gained, new):
    pairs=[(gained[j]-gained[i])/(lost[j]-lost[i]) for i in range(len(lost)) for j in range(i) if lost[i]!=lost[j]]
    k=np.median(pairs) if pairs else 0.0
    r=np.array(gained)-k*np.array(lost)
    return k*new+r.min(), k*new+r.max()
